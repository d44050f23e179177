"""What CEL's operators do to JSON values, and the bounds of one evaluation.

null bool int double string list map  are  None bool int float str list dict
"""

import math
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from gateway.patterns import Pattern

WORK_MAX: Final = 200_000
"""Steps of one evaluation: a step is a part of the expression that is computed, or CHARS_A_STEP of a text that is read."""

MADE_MAX: Final = 4 * 2**20
"""Characters of all the texts that one evaluation makes, and of its result; an item of a list or map counts as ITEM_CHARS."""

ITEM_CHARS: Final = 16
CHARS_A_STEP: Final = 256
INT_MAX: Final = 2**63 - 1

_KINDS: Final = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map"}
_SIMPLE: Final[dict[str, Callable[[Any, Any], Any]]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Problem(Exception):
    """Why an expression has no value. `||`, `&&`, all and exists get over it where the rest of them decides."""


class Exhausted(Problem):
    """The evaluation reached a bound. Nothing gets over it."""


class Frame:
    """One evaluation: what the names stand for, what is spent of its bounds, and the patterns that it has compiled."""

    __slots__ = ("made", "patterns", "values", "work")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self.patterns: dict[str, Pattern] = {}
        self.work = self.made = 0

    def spend(self, steps: int) -> None:
        """Before so many steps. Raises Exhausted."""
        self.work += steps
        if self.work > WORK_MAX:
            message = (
                f"it takes more than {WORK_MAX} steps; give it a shorter list, or loop over fewer lists inside one another"
            )
            raise Exhausted(message)

    def read(self, text: str) -> None:
        """Before a text is searched or compared. Raises Exhausted."""
        self.spend(1 + len(text) // CHARS_A_STEP)

    def make(self, chars: int) -> None:
        """Before a text of so many characters. Raises Exhausted."""
        self.made += chars
        if self.made > MADE_MAX:
            message = f"it makes more than {MADE_MAX} characters, or {MADE_MAX // ITEM_CHARS} items"
            raise Exhausted(message)

    def make_items(self, count: int) -> None:
        """Before a list or a map of so many items. Raises Exhausted."""
        self.make(count * ITEM_CHARS)

    def weigh(self, value: Any) -> int:
        """Before a value is written out: how many parts it has, each as often as it is mentioned. Raises Exhausted."""
        waiting, size, parts = [value], 0, 0
        while waiting:
            each = waiting.pop()
            parts += 1
            size += ITEM_CHARS
            if isinstance(each, str):
                size += len(each)
            elif isinstance(each, dict):
                size += sum(map(len, each))
                waiting += each.values()
            elif isinstance(each, list):
                waiting += each
            if size + len(waiting) * ITEM_CHARS > MADE_MAX:
                message = f"it gives more than {MADE_MAX} characters, or {MADE_MAX // ITEM_CHARS} items"
                raise Exhausted(message)
        return parts


def kind(value: Any) -> str:
    """CEL's name of a value's type."""
    return _KINDS.get(type(value), "null")


def shown(value: Any) -> str:
    """A value as a message shows it. One with parts may have more of them than can be written."""
    if isinstance(value, list | dict):
        return f"a {kind(value)}"
    return repr(value[:80] if isinstance(value, str) else value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def truth(value: Any, of: str) -> bool:
    """The value, if it is a bool. Raises Problem."""
    if not isinstance(value, bool):
        message = f"{of} takes true or false, not {kind(value)}"
        raise Problem(message)
    return value


def equal(frame: Frame, left: Any, right: Any) -> bool:
    """Equality of values: numbers by what they count, and nothing else across types. Does not recurse itself."""
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        frame.spend(1)
        if isinstance(one, str) and isinstance(other, str):
            frame.read(one)
            same = one == other
        elif isinstance(one, list) and isinstance(other, list):
            same = len(one) == len(other)
            frame.spend(len(one))
            waiting += zip(one, other, strict=False) if same else ()
        elif isinstance(one, dict) and isinstance(other, dict):
            frame.spend(len(one))
            same = one.keys() == other.keys()
            waiting += ((each, other[key]) for key, each in one.items()) if same else ()
        elif is_number(one) and is_number(other):
            same = one == other
        else:
            same = kind(one) == kind(other) and one == other
        if not same:
            return False
    return True


def unequal(frame: Frame, left: Any, right: Any) -> bool:
    return not equal(frame, left, right)


def inside(frame: Frame, item: Any, whole: Any) -> bool:
    """Whether a list has the item, or a map the key. Raises Problem."""
    if isinstance(whole, dict):
        return isinstance(item, str) and item in whole
    if not isinstance(whole, list):
        message = f"in looks into a list or a map, not a {kind(whole)}"
        raise Problem(message)
    return any(equal(frame, item, each) for each in whole)


def compared(sign: str, frame: Frame, left: Any, right: Any) -> bool:
    """`left sign right` for <, <=, > and >=. Raises Problem."""
    fits = (is_number(left) and is_number(right)) or (type(left) is type(right) and isinstance(left, str | bool))
    if not fits:
        message = f"{sign} does not compare {kind(left)} with {kind(right)}"
        raise Problem(message)
    if isinstance(left, str):
        frame.read(left)
    return _ORDERS[sign](left, right)


def computed(sign: str, frame: Frame, left: Any, right: Any) -> Any:
    """`left sign right` for +, -, *, / and %. Raises Problem."""
    if sign == "+" and isinstance(left, str | list) and type(left) is type(right):
        (frame.make if isinstance(left, str) else frame.make_items)(len(left) + len(right))
        return _SIMPLE[sign](left, right)
    if not is_number(left) or not is_number(right):
        message = f"{sign} does not take {kind(left)} and {kind(right)}"
        raise Problem(message)
    if isinstance(left, float) or isinstance(right, float):
        return _decimal(sign, as_double(left), as_double(right))
    return as_int(_whole(sign, left, right))


OPERATORS: Final[dict[str, Callable[[Frame, Any, Any], Any]]] = {
    "==": equal,
    "!=": unequal,
    "in": inside,
    **{sign: partial(compared, sign) for sign in _ORDERS},
    **{sign: partial(computed, sign) for sign in (*_SIMPLE, "/", "%")},
}


def as_int(number: int) -> int:
    """The number, if it is one of CEL's, which have 64 bits. Raises Problem."""
    if not -INT_MAX - 1 <= number <= INT_MAX:
        message = "a whole number beyond 64 bits"
        raise Problem(message)
    return number


def as_double(number: float) -> float:
    """Raises Problem."""
    try:
        return float(number)
    except OverflowError:
        message = "a whole number that no decimal one can say"
        raise Problem(message) from None


def _whole(sign: str, left: int, right: int) -> int:
    if sign in _SIMPLE:
        made: int = _SIMPLE[sign](left, right)
        return made
    if right == 0:
        message = "division by zero"
        raise Problem(message)
    quotient = abs(left) // abs(right)  # Towards zero, the remainder with the sign of what is divided.
    quotient = quotient if (left < 0) == (right < 0) else -quotient
    return quotient if sign == "/" else left - right * quotient


def _decimal(sign: str, left: float, right: float) -> float:
    if sign in _SIMPLE:
        made: float = _SIMPLE[sign](left, right)
        return made
    if right == 0:
        if sign == "/" and left == left and left != 0:  # noqa: PLR0124  # Which is what a NaN is not.
            return math.copysign(math.inf, left) * math.copysign(1.0, right)
        return math.nan
    try:
        return left / right if sign == "/" else math.fmod(left, right)
    except ValueError:
        return math.nan
