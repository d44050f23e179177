"""Conditions on a chunk's metadata, as plain values that can be compared and hashed (results are cached by them).

A field is a key of the metadata; keys of nested objects are joined by dots. A field that holds a list matches when one of its
elements does. Values of different types are never equal: 1 is not "1", and true is not 1. A key that holds a dot itself is not
told from a nested one: {"a.b": 1} and {"a": {"b": 1}} both have the field "a.b".
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Final

Scalar = str | float | bool
"""What a field is compared with; every number is a float."""
Bound = str | float | datetime
"""A bound of a range: a time where the text that was given is one (RFC 3339; always with a time zone here)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneOf:
    """The field has one of these values. A single one says "equals"."""

    field: str
    values: tuple[Scalar, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneOf) and self._typed() == other._typed()

    def __hash__(self) -> int:
        return hash(self._typed())

    def _typed(self) -> tuple[object, ...]:
        """With the types, because Python takes 1.0 and True for equal, and one's result would be given for the other's."""
        return self.field, *((type(value), value) for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The field lies between bounds of one type, of which at least one is given."""

    field: str
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists:
    """The field is there, with any value but null."""

    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOf:
    """All match: "and". None given: everything matches."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One matches: "or". None given: nothing matches."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneOf:
    """None matches: "not". None given: everything matches."""

    filters: "tuple[Filter, ...]"


Filter = OneOf | Range | Exists | AllOf | AnyOf | NoneOf

_RFC3339: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?")


def parsed_time(text: str) -> datetime | None:
    """The instant that a text names in RFC 3339: a date-time with its offset, or a date, which is its midnight in UTC.

    None: the text is none. Digits below a microsecond are dropped.
    """
    if text[4:5] != "-" or not _RFC3339.fullmatch(text):
        return None
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:  # Such as a 30th of February.
        return None
    return instant if instant.tzinfo else datetime.combine(instant, time.min, UTC)
