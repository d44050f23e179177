"""The functions of expressions. Each can be written `name(value, ...)` or `value.name(...)`.

Positions count characters from 0. What is not in CEL's own definitions or its strings extension is marked with a star.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.expressions.arithmetic import Frame, Problem, as_double, as_int, equal, is_number, kind, shown
from gateway.patterns import Pattern
from gateway.values import as_text
from penstock.errors import PenstockError

_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}")
_INSTRUCTIONS_A_STEP: Final = 64
"""Of a pattern at the characters of a text."""

_STEPS_A_PATTERN: Final = 10_000
"""A pattern that is refused as too large can take 10 ms until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function and how many arguments it takes."""

    apply: Callable[..., Any]
    least: int
    most: int


def _size(frame: Frame, value: Any) -> int:  # noqa: ARG001  # All take the frame.
    if not isinstance(value, str | list | dict):
        message = f"size takes a string, a list or a map, not {kind(value)}"
        raise Problem(message)
    return len(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        message = f"a string is needed, not {kind(value)}"
        raise Problem(message)
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        message = f"a list is needed, not {kind(value)}"
        raise Problem(message)
    return value


def _number(value: Any) -> Any:
    if not is_number(value):
        message = f"a number is needed, not {kind(value)}"
        raise Problem(message)
    return value


def _position(value: Any, most: int) -> int:
    if not is_number(value) or value % 1 != 0 or not 0 <= value <= most:
        message = f"a position from 0 to {most} is needed, not {shown(value)}"
        raise Problem(message)
    return int(value)


def _whole(value: Any) -> int:
    if not is_number(value) or value % 1 != 0:
        message = f"a whole number is needed, not {shown(value)}"
        raise Problem(message)
    return int(value)


def _numbers(values: tuple[Any, ...], name: str) -> list[Any]:
    found = [_number(each) for each in (_list(values[0]) if len(values) == 1 else values)]
    if not found:
        message = f"{name} of an empty list"
        raise Problem(message)
    return found


# Texts.


def _contains(frame: Frame, text: Any, part: Any) -> bool:
    frame.read(_text(text))
    return _text(part) in text


def _starts_with(frame: Frame, text: Any, part: Any) -> bool:
    frame.read(_text(part))
    return _text(text).startswith(part)


def _ends_with(frame: Frame, text: Any, part: Any) -> bool:
    frame.read(_text(part))
    return _text(text).endswith(part)


def _matches(frame: Frame, text: Any, pattern: Any) -> bool:
    compiled = frame.patterns.get(_text(pattern)) or _compiled(frame, pattern)
    frame.spend(1 + (1 + len(_text(text))) * compiled.instructions // _INSTRUCTIONS_A_STEP)
    try:
        return compiled.test(text)
    except PenstockError as error:
        raise Problem(error.message) from error


def _compiled(frame: Frame, pattern: str) -> Pattern:
    frame.spend(_STEPS_A_PATTERN)
    try:
        return frame.patterns.setdefault(pattern, Pattern(pattern))
    except ValueError as error:
        raise Problem(str(error)) from error


def _changed(change: Callable[[str], str]) -> Callable[[Frame, Any], str]:
    def apply(frame: Frame, text: Any) -> str:
        frame.make(len(_text(text)))
        return change(text)

    return apply


def _split(frame: Frame, text: Any, separator: Any, limit: Any = -1) -> list[str]:
    whole, between = _text(text), _text(separator)
    frame.make_items(len(whole) + 1 if not between else 1 + whole.count(between))
    frame.make(len(whole))
    most = len(whole) + 1 if _whole(limit) < 0 else min(int(limit), len(whole) + 1)
    if most == 0:
        return []
    if between:
        return whole.split(between, most - 1)
    letters = list(whole)
    return letters if len(letters) <= most else [*letters[: most - 1], whole[most - 1 :]]


def _join(frame: Frame, texts: Any, separator: Any = "") -> str:
    parts, between = [_text(each) for each in _list(texts)], _text(separator)
    frame.make(sum(map(len, parts)) + len(between) * max(0, len(parts) - 1))
    return between.join(parts)


def _replace(frame: Frame, text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    whole, before, after, most = _text(text), _text(old), _text(new), _whole(limit)
    frame.read(whole)
    count = whole.count(before) if most < 0 else min(most, whole.count(before))
    frame.make(len(whole) + count * max(0, len(after) - len(before)))
    return whole.replace(before, after, count)


def _substring(frame: Frame, text: Any, start: Any, end: Any = None) -> str:
    whole = _text(text)
    last = len(whole) if end is None else _position(end, len(whole))
    first = _position(start, last)
    frame.make(last - first)
    return whole[first:last]


def _index_of(frame: Frame, text: Any, part: Any, start: Any = 0) -> int:
    whole = _text(text)
    frame.read(whole)
    return whole.find(_text(part), _position(start, len(whole)))


def _last_index_of(frame: Frame, text: Any, part: Any) -> int:
    whole = _text(text)
    frame.read(whole)
    return whole.rfind(_text(part))


# Types.


def _string(frame: Frame, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        message = "a number that is not finite is no text"
        raise Problem(message)
    frame.spend(frame.weigh(value))
    try:
        text = as_text(value)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Problem(str(error)) from error
    frame.make(len(text))
    return text


def _int(frame: Frame, value: Any) -> int:  # noqa: ARG001
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return as_int(int(value))
    if not is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
        message = f"int takes a finite number, or a string of digits, not {shown(value)}"
        raise Problem(message)
    return as_int(int(value))


def _double(frame: Frame, value: Any) -> float:  # noqa: ARG001
    if isinstance(value, str) and len(value) <= 400 and _DECIMAL.fullmatch(value):
        return float(value)
    if not is_number(value):
        message = f"double takes a number, or a string that is one, not {shown(value)}"
        raise Problem(message)
    return as_double(value)


def _bool(frame: Frame, value: Any) -> bool:  # noqa: ARG001
    if isinstance(value, bool):
        return value
    if value in {"true", "false"} if isinstance(value, str) else False:
        return bool(value == "true")
    message = f'bool takes a bool, "true" or "false", not {shown(value)}'
    raise Problem(message)


# Numbers.


def _sum(frame: Frame, values: Any) -> Any:
    frame.spend(len(_list(values)))
    numbers = [_number(each) for each in values]
    if any(isinstance(each, float) for each in numbers):
        return sum(map(as_double, numbers))
    return as_int(sum(numbers))


def _min(frame: Frame, *values: Any) -> Any:
    numbers = _numbers(values, "min")
    frame.spend(len(numbers))
    return min(numbers)


def _max(frame: Frame, *values: Any) -> Any:
    numbers = _numbers(values, "max")
    frame.spend(len(numbers))
    return max(numbers)


def _mean(frame: Frame, values: Any) -> float:
    numbers = _numbers((_list(values),), "mean")
    frame.spend(len(numbers))
    return sum(map(as_double, numbers)) / len(numbers)


def _abs(frame: Frame, value: Any) -> Any:  # noqa: ARG001
    return abs(value) if isinstance(_number(value), float) else as_int(abs(value))


def _rounded(to_whole: Callable[[float], int]) -> Callable[[Frame, Any], int]:
    def apply(frame: Frame, value: Any) -> int:  # noqa: ARG001
        if not math.isfinite(as_double(_number(value))):
            message = "a number that is not finite cannot be rounded"
            raise Problem(message)
        return as_int(to_whole(value))

    return apply


def _exp(frame: Frame, value: Any) -> float:  # noqa: ARG001
    try:
        return math.exp(_number(value))
    except OverflowError:
        return math.inf


def _ln(frame: Frame, value: Any) -> float:  # noqa: ARG001
    if _number(value) <= 0:
        message = "ln takes a number above 0"
        raise Problem(message)
    return math.log(value)


# Lists.


def _range(frame: Frame, count: Any) -> list[int]:
    most = max(0, _whole(count))
    frame.make_items(most)
    return list(range(most))


def _slice(frame: Frame, items: Any, start: Any, end: Any = None) -> list[Any]:
    whole = _list(items)
    last = len(whole) if end is None else _position(end, len(whole))
    first = _position(start, last)
    frame.make_items(last - first)
    return whole[first:last]


def _flatten(frame: Frame, items: Any) -> list[Any]:
    frame.make_items(sum(len(each) if isinstance(each, list) else 1 for each in _list(items)))
    return [part for each in items for part in (each if isinstance(each, list) else [each])]


def _distinct(frame: Frame, items: Any) -> list[Any]:
    frame.make_items(len(_list(items)))
    kept: list[Any] = []
    for item in items:
        if not any(equal(frame, item, each) for each in kept):
            kept.append(item)
    return kept


def _sort(frame: Frame, items: Any) -> list[Any]:
    frame.make_items(len(_list(items)))
    frame.spend(len(items) * max(1, len(items).bit_length()))
    if not all(map(is_number, items)) and not all(isinstance(each, str) for each in items):
        message = "sort takes a list of numbers or a list of strings"
        raise Problem(message)
    return sorted(items)


def _reverse(frame: Frame, items: Any) -> list[Any]:
    whole = _list(items)
    frame.make_items(len(whole))
    return whole[::-1]


def _running_sum(frame: Frame, values: Any) -> list[Any]:
    frame.make_items(len(_list(values)))
    frame.spend(len(values))
    sums: list[Any] = []
    total: Any = 0
    for each in values:
        total += _number(each)
        sums.append(total if isinstance(total, float) else as_int(total))
    return sums


def _round_half_away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value)) if isinstance(value, float) else value


def _ascii(change: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda text: change(text.encode()).decode()


FUNCTIONS: Final[Mapping[str, Function]] = {
    "size": Function(apply=_size, least=1, most=1),  # Characters, items or entries.
    "contains": Function(apply=_contains, least=2, most=2),
    "startsWith": Function(apply=_starts_with, least=2, most=2),
    "endsWith": Function(apply=_ends_with, least=2, most=2),
    "matches": Function(apply=_matches, least=2, most=2),  # Of RE2, anywhere in the text.
    "string": Function(apply=_string, least=1, most=1),
    "int": Function(apply=_int, least=1, most=1),  # Towards zero.
    "double": Function(apply=_double, least=1, most=1),
    "bool": Function(apply=_bool, least=1, most=1),
    "lowerAscii": Function(apply=_changed(_ascii(bytes.lower)), least=1, most=1),
    "upperAscii": Function(apply=_changed(_ascii(bytes.upper)), least=1, most=1),
    "lower": Function(apply=_changed(str.lower), least=1, most=1),  # *
    "upper": Function(apply=_changed(str.upper), least=1, most=1),  # *
    "trim": Function(apply=_changed(str.strip), least=1, most=1),
    "split": Function(apply=_split, least=2, most=3),  # A text, a separator, the most parts.
    "join": Function(apply=_join, least=1, most=2),
    "replace": Function(apply=_replace, least=3, most=4),
    "substring": Function(apply=_substring, least=2, most=3),
    "indexOf": Function(apply=_index_of, least=2, most=3),  # -1 where it is nowhere.
    "lastIndexOf": Function(apply=_last_index_of, least=2, most=2),
    "sum": Function(apply=_sum, least=1, most=1),  # *
    "min": Function(apply=_min, least=1, most=8),  # *, of a list, or of the arguments.
    "max": Function(apply=_max, least=1, most=8),  # *
    "mean": Function(apply=_mean, least=1, most=1),  # *
    "abs": Function(apply=_abs, least=1, most=1),  # *
    "ceil": Function(apply=_rounded(math.ceil), least=1, most=1),  # *
    "floor": Function(apply=_rounded(math.floor), least=1, most=1),  # *
    "round": Function(apply=_rounded(_round_half_away), least=1, most=1),  # *, halves away from zero.
    "exp": Function(apply=_exp, least=1, most=1),  # *
    "ln": Function(apply=_ln, least=1, most=1),  # *
    "range": Function(apply=_range, least=1, most=1),  # *, the numbers below one.
    "slice": Function(apply=_slice, least=2, most=3),  # *
    "flatten": Function(apply=_flatten, least=1, most=1),  # *, by one level.
    "distinct": Function(apply=_distinct, least=1, most=1),  # *
    "sort": Function(apply=_sort, least=1, most=1),  # *
    "reverse": Function(apply=_reverse, least=1, most=1),  # *
    "runningSum": Function(apply=_running_sum, least=1, most=1),  # *, the sum up to each item, itself counted.
}
