"""Filters between protobuf and values. What is wrong with one is named by its place: "filter.all_of.filters[2].range.gte"."""

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from google.protobuf.struct_pb2 import Value

from penstock.errors import InvalidArgument, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.filters import AllOf, AnyOf, Bound, Exists, Filter, NoneOf, OneOf, Range, Scalar, parsed_time

LEVELS_MAX: Final = 32
CONDITIONS_MAX: Final = 256
VALUES_MAX: Final = 10_000
STRING_BYTES_MAX: Final = 64 * 2**10

_COMBINED: Final[dict[str, type[AllOf | AnyOf | NoneOf]]] = {"all_of": AllOf, "any_of": AnyOf, "none_of": NoneOf}
_BOUNDS: Final = ("gt", "gte", "lt", "lte")


def filter_from(message: pb.Filter, place: str = "filter") -> Filter:
    """The filter that a message is. Raises InvalidArgument."""
    return _Reading().condition(message, place, 1)


def filter_message(condition: Filter) -> pb.Filter:
    """A filter as one node sends it to another."""
    match condition:
        case OneOf():
            return pb.Filter(one_of=pb.OneOf(field=condition.field, values=map(_value_message, condition.values)))
        case Range():
            given = {name: _value_message(bound) for name in _BOUNDS if (bound := getattr(condition, name)) is not None}
            return pb.Filter(range=pb.Range(field=condition.field, **given))
        case Exists():
            return pb.Filter(exists=pb.Exists(field=condition.field))
        case AllOf():
            return pb.Filter(all_of=_filters_message(condition.filters))
        case AnyOf():
            return pb.Filter(any_of=_filters_message(condition.filters))
        case NoneOf():
            return pb.Filter(none_of=_filters_message(condition.filters))


class _Reading:
    """One filter being read: its conditions are counted over all levels, the combined ones with those that they combine."""

    def __init__(self) -> None:
        self._count = 0

    def condition(self, message: pb.Filter, place: str, level: int) -> Filter:
        """The condition at a place."""
        if level > LEVELS_MAX:
            raise _invalid(place, f"is nested too deeply: a filter has at most {LEVELS_MAX} levels", limit=LEVELS_MAX)
        self._count += 1
        if self._count > CONDITIONS_MAX:
            raise _invalid(place, f"is one too many: a filter has at most {CONDITIONS_MAX} conditions", limit=CONDITIONS_MAX)
        match message.WhichOneof("kind"):
            case "equals":
                return _equals(message.equals, f"{place}.equals")
            case "one_of":
                return _one_of(message.one_of, f"{place}.one_of")
            case "range":
                return _range(message.range, f"{place}.range")
            case "exists":
                return Exists(field=_field(message.exists.field, f"{place}.exists"))
            case "all_of" | "any_of" | "none_of" as kind:
                inner: pb.Filters = getattr(message, kind)
                return _COMBINED[kind](filters=self._conditions(inner.filters, f"{place}.{kind}.filters", level + 1))
            case _:
                raise _invalid(place, "says nothing; give one of equals, one_of, range, exists, all_of, any_of, none_of")

    def _conditions(self, messages: Iterable[pb.Filter], place: str, level: int) -> tuple[Filter, ...]:
        return tuple(self.condition(message, f"{place}[{at}]", level) for at, message in enumerate(messages))


def _equals(message: pb.Equals, place: str) -> OneOf:
    value = _scalar(message.value, f"{place}.value")
    return OneOf(field=_field(message.field, place), values=(value,))


def _one_of(message: pb.OneOf, place: str) -> OneOf:
    count = len(message.values)
    if not 1 <= count <= VALUES_MAX:
        raise _invalid(f"{place}.values", f"must be from 1 to {VALUES_MAX} values; not {count}", limit=VALUES_MAX)
    values = tuple(_scalar(value, f"{place}.values[{at}]") for at, value in enumerate(message.values))
    return OneOf(field=_field(message.field, place), values=values)


def _range(message: pb.Range, place: str) -> Range:
    bounds = {name: _bound(getattr(message, name), f"{place}.{name}") for name in _BOUNDS if message.HasField(name)}
    if not bounds:
        raise _invalid(place, "has no bound; give at least one of gt, gte, lt, lte")
    first, *others = bounds
    for name in others:
        if type(bounds[name]) is not type(bounds[first]):
            kind, other = _kind(bounds[name]), _kind(bounds[first])
            raise _invalid(f"{place}.{name}", f"is a {kind}, but {first} is a {other}; the bounds of a range have one type")
    return Range(field=_field(message.field, place), **bounds)


def _field(name: str, place: str) -> str:
    if not name:
        raise _invalid(f"{place}.field", "is empty; name a key of the metadata")
    return _text(name, f"{place}.field")


def _bound(message: Value, place: str) -> Bound:
    value = _scalar(message, place)
    if isinstance(value, bool):
        raise _invalid(place, "is a bool, which has no order; give a number, a time or another string")
    return parsed_time(value) or value if isinstance(value, str) else value


def _scalar(message: Value, place: str) -> Scalar:
    match message.WhichOneof("kind"):
        case "string_value":
            return _text(message.string_value, place)
        case "number_value":
            if not math.isfinite(message.number_value):
                raise _invalid(place, "is not a finite number")
            return message.number_value
        case "bool_value":
            return message.bool_value
        case "null_value":
            raise _invalid(place, "is null, which no field is; ask by exists, within none_of, whether a field is missing")
        case None:
            raise _invalid(place, "is missing; give a string, a number or a bool")
        case _:
            raise _invalid(place, "is a list or an object; give a string, a number or a bool")


def _text(text: str, place: str) -> str:
    if len(text) > STRING_BYTES_MAX // 4 and len(text.encode()) > STRING_BYTES_MAX:
        raise _invalid(place, f"is longer than {STRING_BYTES_MAX} bytes", limit=STRING_BYTES_MAX)
    return text


def _kind(bound: Bound) -> str:
    return "time" if isinstance(bound, datetime) else "string" if isinstance(bound, str) else "number"


def _value_message(value: Scalar | Bound) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, float | int):
        return Value(number_value=value)
    return Value(string_value=value if isinstance(value, str) else value.isoformat())


def _filters_message(conditions: Iterable[Filter]) -> pb.Filters:
    return pb.Filters(filters=map(filter_message, conditions))


def _invalid(place: str, problem: str, *, limit: int | None = None) -> InvalidArgument:
    metadata = {"field": place} | ({} if limit is None else {"limit": str(limit)})
    return InvalidArgument(f"{place} {problem}", metadata=metadata, violations=[Violation(message=problem, field=place)])
