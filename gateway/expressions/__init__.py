"""Expressions of a flow: CEL, the Common Expression Language, over JSON. It has no loops but those over a list.

    size(passages) > 0 && question.contains("?")

An expression is parsed once, with the flow; what it names are its variables. It is evaluated here, node by node, and not by
one of CEL's libraries: those bound neither the work nor the memory of an expression (a hundred characters of chained `map`
double a list until nothing is left), and refuse `score * 0.5` where the score of the day is the whole number 1.

Of CEL it has what JSON has: null, booleans, numbers, strings, lists, and maps whose keys are strings. The differences: whole
and decimal numbers mix in arithmetic (the result is decimal), as JSON does not tell them apart; there is no uint, bytes,
timestamp, duration, message or type value. functions.py has the functions.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.expressions.arithmetic import Frame, Problem
from gateway.expressions.syntax import parse
from gateway.values import DEPTH_MAX, as_json, is_deeper, is_finite
from penstock.errors import FailedPrecondition

EXPRESSION_CHARS_MAX: Final = 2000


class Expression:
    """A parsed expression. `variables` are the names that it reads and does not bind itself, in alphabetical order."""

    __slots__ = ("_root", "text", "variables")

    def __init__(self, text: str) -> None:
        """Raises ValueError where the text is not an expression."""
        if not 1 <= len(text) <= EXPRESSION_CHARS_MAX:
            message = f"an expression has 1 to {EXPRESSION_CHARS_MAX} characters; this one has {len(text)}"
            raise ValueError(message)
        self.text = text
        self._root, self.variables = parse(text)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """What the expression says of values as edges carry them: passages read as objects. Raises FailedPrecondition."""
        frame = Frame({name: as_json(values[name]) for name in self.variables})
        try:
            result = self._root.evaluate(frame)
            if isinstance(result, bool):
                return result
            frame.weigh(result)
        except Problem as problem:
            raise FailedPrecondition(f"the expression {self.text[:80]!r} cannot be computed: {problem}") from problem
        if not is_finite(result):
            raise FailedPrecondition(f"the expression {self.text[:80]!r} gives a number that is not finite")
        if is_deeper(result, DEPTH_MAX):
            raise FailedPrecondition(f"the expression {self.text[:80]!r} gives JSON that is nested more than {DEPTH_MAX} deep")
        return result


def checked(text: str) -> str:
    """The text, if it is an expression. Raises ValueError."""
    Expression(text)
    return text
