"""Conditions on metadata, for searches and deletions.

    from penstock.clients.filters import between, equals, one_of

    recent = between("year", gte=2020) & (equals("lang", "en") | one_of("source", ["wiki", "news"]))
    await client.search("wiki", "towers", filter=recent & ~equals("draft", True))

A field is a key of the metadata, keys of nested objects joined by dots. The service refuses a filter on a field that no chunk
has or ever had, or only with values of another type.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from google.protobuf.struct_pb2 import Value

from penstock.retrieval.v1 import retrieval_pb2 as pb

Scalar = str | float | bool
Bound = str | float | date
"""A bound of a range. A date or time is compared as such with values in RFC 3339; one without a zone is taken for UTC."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition. `a & b`: both; `a | b`: one of them; `~a`: not."""

    message: pb.Filter

    def __and__(self, other: "Filter") -> "Filter":
        return all_of(self, other)

    def __or__(self, other: "Filter") -> "Filter":
        return any_of(self, other)

    def __invert__(self) -> "Filter":
        return none_of(self)


def equals(field: str, value: Scalar) -> Filter:
    """The field has this value, or is a list with it."""
    return Filter(pb.Filter(equals=pb.Equals(field=field, value=_value(value))))


def one_of(field: str, values: Iterable[Scalar]) -> Filter:
    """The field has one of these values, or is a list with one of them."""
    return Filter(pb.Filter(one_of=pb.OneOf(field=field, values=[_value(value) for value in values])))


def between(
    field: str, *, gt: Bound | None = None, gte: Bound | None = None, lt: Bound | None = None, lte: Bound | None = None
) -> Filter:
    """The field lies between bounds of one type, of which at least one is given."""
    given = {name: bound for name, bound in (("gt", gt), ("gte", gte), ("lt", lt), ("lte", lte)) if bound is not None}
    return Filter(pb.Filter(range=pb.Range(field=field, **{name: _value(_bound(bound)) for name, bound in given.items()})))


def exists(field: str) -> Filter:
    """The chunk has the field, with any value but null."""
    return Filter(pb.Filter(exists=pb.Exists(field=field)))


def all_of(*filters: Filter) -> Filter:
    """All of them match; without any, everything does."""
    return Filter(pb.Filter(all_of=_combined(filters)))


def any_of(*filters: Filter) -> Filter:
    """One of them matches; without any, nothing does."""
    return Filter(pb.Filter(any_of=_combined(filters)))


def none_of(*filters: Filter) -> Filter:
    """None of them matches; without any, everything does."""
    return Filter(pb.Filter(none_of=_combined(filters)))


def _combined(filters: Iterable[Filter]) -> pb.Filters:
    return pb.Filters(filters=[each.message for each in filters])


def _bound(bound: Bound) -> Scalar:
    if isinstance(bound, datetime):
        return (bound if bound.tzinfo else bound.replace(tzinfo=UTC)).isoformat()
    return bound.isoformat() if isinstance(bound, date) else bound


def _value(value: Scalar) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)
