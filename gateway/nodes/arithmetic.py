"""Arithmetic that a text asks for, such as "4 * (33 / 22) ** 2": read and computed here, nothing of it is ever executed.

    sum      = product (("+" | "-") product)*
    product  = signed (("*" | "/" | "//" | "%") signed)*
    signed   = ("+" | "-") signed | power
    power    = atom (("**" | "^") signed)?
    atom     = number | name | name "(" sum ("," sum)* ")" | "(" sum ")"

As in Python, -2 ** 2 is -4, 7 / 2 is 3.5, and whole numbers are exact. Everything is bounded: a text by its length and its
nesting, numbers by their digits.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

CHARS_MAX: Final = 1000
DEPTH_MAX: Final = 50
DIGITS_MAX: Final = 300
_WHOLE_MAX: Final = 10**DIGITS_MAX

Number = int | float

_TOKENS: Final = re.compile(
    r"""\s*(?:
      ([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? | \.[0-9]+(?:[eE][+-]?[0-9]+)?)  # a number
    | ([A-Za-z_][A-Za-z0-9_]*)                                                # a name
    | (\*\* | // | [-+*/%^(),])
    | (\S)
    )""",
    re.VERBOSE,
)
_WRITTEN_OTHERWISE: Final = str.maketrans({
    "\N{MULTIPLICATION SIGN}": "*", "\N{MIDDLE DOT}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-",
    "\N{SUPERSCRIPT TWO}": "^2", "\N{SUPERSCRIPT THREE}": "^3",
})  # fmt: skip
_CONSTANTS: Final[dict[str, float]] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: Final[dict[str, tuple[Callable[..., Number], int, int]]] = {
    "abs": (abs, 1, 1), "sqrt": (math.sqrt, 1, 1), "exp": (math.exp, 1, 1), "log": (math.log, 1, 2), "ln": (math.log, 1, 1),
    "log2": (math.log2, 1, 1), "log10": (math.log10, 1, 1), "floor": (math.floor, 1, 1), "ceil": (math.ceil, 1, 1),
    "sin": (math.sin, 1, 1), "cos": (math.cos, 1, 1), "tan": (math.tan, 1, 1), "asin": (math.asin, 1, 1),
    "acos": (math.acos, 1, 1), "atan": (math.atan, 1, 1), "atan2": (math.atan2, 2, 2), "hypot": (math.hypot, 2, 2),
    "degrees": (math.degrees, 1, 1), "radians": (math.radians, 1, 1), "min": (min, 1, 100), "max": (max, 1, 100),
    "round": (lambda *given: _rounded(*given), 1, 2), "pow": (lambda *given: _power(*given), 2, 2),  # noqa: PLW0108  # Below.
}  # fmt: skip


def computed(text: str) -> Number:
    """The number that an expression comes to. Raises ValueError, which says what is wrong with it."""
    if len(text) > CHARS_MAX:
        message = f"the expression has {len(text)} characters; at most {CHARS_MAX}"
        raise ValueError(message)
    reader = _Reader(_tokens(text.translate(_WRITTEN_OTHERWISE)))
    try:
        return reader.whole()
    except ZeroDivisionError:
        message = "a division by zero"
    except OverflowError:
        message = "a number that is too large"
    except TypeError:
        message = "a number that is not real"
    raise ValueError(message)


def _tokens(text: str) -> list[str]:
    tokens = []
    for match in _TOKENS.finditer(text):
        if match[4]:
            message = f"{match[4]!r} has no place in arithmetic"
            raise ValueError(message)
        tokens.append(match[1] or match[2] or match[3])
    return tokens


class _Reader:
    """Reads tokens from left to right, each once."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Number:
        result = self._sum()
        if self._at < len(self._tokens):
            message = f"{self._tokens[self._at]!r} is not expected there"
            raise ValueError(message)
        return result

    def _sum(self) -> Number:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            message = f"nested more than {DEPTH_MAX} deep"
            raise ValueError(message)
        result = self._product()
        while sign := self._taken("+", "-"):
            other = self._product()
            result = _bounded(result + other if sign == "+" else result - other)
        self._depth -= 1
        return result

    def _product(self) -> Number:
        result = self._signed()
        while operator := self._taken("*", "/", "//", "%"):
            result = _bounded(_OPERATORS[operator](result, self._signed()))
        return result

    def _signed(self) -> Number:
        is_negative = False
        while sign := self._taken("+", "-"):
            is_negative ^= sign == "-"
        result = self._power()
        return -result if is_negative else result

    def _power(self) -> Number:
        result = self._atom()
        if not self._taken("**", "^"):
            return result
        self._depth += 1
        if self._depth > DEPTH_MAX:
            message = f"nested more than {DEPTH_MAX} deep"
            raise ValueError(message)
        exponent = self._signed()
        self._depth -= 1
        return _power(result, exponent)

    def _atom(self) -> Number:
        token = self._next()
        if token == "(":  # noqa: S105  # A parenthesis.
            result = self._sum()
            self._expect(")")
            return result
        if token[0].isdigit() or token[0] == ".":
            return _bounded(int(token) if token.isdigit() else float(token))
        if token in _FUNCTIONS:
            return self._called(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        known = ", ".join((*_FUNCTIONS, *_CONSTANTS))
        message = f"{token!r} is not known; known: {known}" if token[0].isalpha() else f"{token!r} is not expected there"
        raise ValueError(message)

    def _called(self, name: str) -> Number:
        function, fewest, most = _FUNCTIONS[name]
        self._expect("(")
        arguments = [self._sum()]
        while self._taken(","):
            arguments.append(self._sum())
        self._expect(")")
        if not fewest <= len(arguments) <= most:
            message = f"{name} takes {fewest if fewest == most else f'{fewest} to {most}'} numbers, not {len(arguments)}"
            raise ValueError(message)
        return _bounded(function(*arguments))

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            message = "the expression ends too early" if self._tokens else "the expression is empty"
            raise ValueError(message)
        self._at += 1
        return self._tokens[self._at - 1]

    def _taken(self, *wanted: str) -> str:
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            return self._next()
        return ""

    def _expect(self, wanted: str) -> None:
        if not self._taken(wanted):
            found = repr(self._tokens[self._at]) if self._at < len(self._tokens) else "the end"
            message = f"expected {wanted!r}, found {found}"
            raise ValueError(message)


def _divided(first: Number, second: Number) -> Number:
    if isinstance(first, int) and isinstance(second, int) and second and first % second == 0:
        return first // second
    return first / second


_OPERATORS: Final[dict[str, Callable[[Number, Number], Number]]] = {
    "*": lambda first, second: first * second,
    "/": _divided,
    "//": lambda first, second: first // second,
    "%": lambda first, second: first % second,
}


def _rounded(number: Number, digits: Number = 0) -> Number:
    if not -DIGITS_MAX <= digits <= DIGITS_MAX:
        raise OverflowError
    return round(number, int(digits)) if digits else round(number)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if exponent * max(base.bit_length() - 1, 0) > DIGITS_MAX * 4:  # So many bits and more; it need not be computed.
            raise OverflowError
        return _bounded(base**exponent)
    return _bounded(float(base) ** float(exponent))


def _bounded(number: Number) -> Number:
    if isinstance(number, complex):
        raise TypeError
    if isinstance(number, int) and abs(number) > _WHOLE_MAX:
        raise OverflowError
    if isinstance(number, float) and not math.isfinite(number):
        raise OverflowError
    return number
