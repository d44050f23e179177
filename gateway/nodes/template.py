"""Prompt templates, parsed once, when the flow is compiled.

f-string        {variable} is a value, {{ and }} are braces
double-brace    {{variable}} is a value, { and } are braces, as is a }} that ends none
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from gateway.values import bounded_join

Syntax = Literal["f-string", "double-brace"]
SYNTAX_DESCRIPTION: Final = (
    "How a variable is written: {name}, with {{ and }} for braces, or {{name}}, with braces as they are."
)

_NAME: Final = r"([A-Za-z_][A-Za-z0-9_]{0,63})"
_PIECES: Final[dict[Syntax, re.Pattern[str]]] = {
    "f-string": re.compile(r"\{\{|\}\}|\{" + _NAME + r"\}|[{}]"),
    "double-brace": re.compile(r"\{\{[ \t]*" + _NAME + r"[ \t]*\}\}|\{\{"),
}

VARIABLES_MAX: Final = 64


class Template:
    """A parsed template: literal texts with a variable after each but the last."""

    __slots__ = ("_literals", "_names", "variables")

    def __init__(self, text: str, syntax: Syntax = "f-string") -> None:
        """Raises ValueError for braces that the syntax gives no meaning, and for more than VARIABLES_MAX variables."""
        self._literals, self._names = _split(text, syntax)
        self.variables = tuple(dict.fromkeys(self._names))
        if len(self.variables) > VARIABLES_MAX:
            message = f"{len(self.variables)} variables; at most {VARIABLES_MAX}"
            raise ValueError(message)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the variables' values in place. Raises MessageTooLarge."""
        parts = [self._literals[0]]
        for name, literal in zip(self._names, self._literals[1:], strict=True):
            parts += (values[name], literal)
        return bounded_join(parts, "")


def _split(text: str, syntax: Syntax) -> tuple[list[str], list[str]]:
    literals, names, literal, end = [], [], "", 0
    for match in _PIECES[syntax].finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[1]:
            literals.append(literal)
            names.append(match[1])
            literal = ""
        elif syntax == "f-string" and match[0] in {"{{", "}}"}:
            literal += match[0][0]
        else:
            raise ValueError(_unclear(match[0], match.start(), syntax))
    return [*literals, literal + text[end:]], names


def _unclear(found: str, place: int, syntax: Syntax) -> str:
    if syntax == "f-string":
        return f"a lone {found} at character {place + 1}: write {{{{ or }}}} for a brace, {{name}} for a variable"
    return f"{{{{ at character {place + 1} begins no variable: write {{{{name}}}}, of letters, digits and underscores"


def checked(text: str) -> str:
    """The text, if it is a template. Raises ValueError."""
    Template(text)
    return text


def checked_for(variables: frozenset[str]) -> Callable[[str], str]:
    """A check for templates whose variables are given: raises ValueError for any other."""

    def check(text: str) -> str:
        unknown = [name for name in Template(text).variables if name not in variables]
        if unknown:
            message = f"unknown variable {{{unknown[0]}}}; known: {', '.join(sorted(variables))}"
            raise ValueError(message)
        return text

    return check
