"""Expressions of a flow: CEL, the Common Expression Language. It has no loops but those over a list, no input and no output.

    size(passages) > 0 && question.contains("?")

The only importer of cel. An expression is compiled once, with the flow; what it names are its variables.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import cel

from gateway.values import as_json, is_finite
from penstock.errors import FailedPrecondition

EXPRESSION_CHARS_MAX: Final = 2000
_STRING: Final = re.compile(r"""r?("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_BOUND: Final = re.compile(r"\.(?:map|filter|all|exists|exists_one)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")


class Expression:
    """A compiled expression. `variables` are the names that it reads, in alphabetical order."""

    __slots__ = ("_program", "text", "variables")

    def __init__(self, text: str) -> None:
        """Raises ValueError where the text is not an expression."""
        if not 1 <= len(text) <= EXPRESSION_CHARS_MAX:
            message = f"an expression has 1 to {EXPRESSION_CHARS_MAX} characters; this one has {len(text)}"
            raise ValueError(message)
        self.text = text
        self._program = cel.compile(text)
        self.variables = tuple(sorted(set(self._program.variables()) - set(_BOUND.findall(_STRING.sub('""', text)))))

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """What the expression says of values as edges carry them: passages read as objects. Raises FailedPrecondition."""
        try:
            result = self._program.execute({name: as_json(values[name]) for name in self.variables})
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise FailedPrecondition(f"the expression {self.text[:80]!r} cannot be computed: {error}") from error
        if not is_finite(result):
            raise FailedPrecondition(f"the expression {self.text[:80]!r} gives a number that is not finite")
        return result


def checked(text: str) -> str:
    """The text, if it is an expression. Raises ValueError."""
    Expression(text)
    return text
