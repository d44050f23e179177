"""Prompt templates: {variable} is a value, {{ and }} are braces. Parsed once, when the flow is compiled."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from gateway.values import bounded_join

_PIECES: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")


VARIABLES_MAX: Final = 64


class Template:
    """A parsed template: literal texts with a variable after each but the last."""

    __slots__ = ("_literals", "_names", "variables")

    def __init__(self, text: str) -> None:
        """Raises ValueError where a brace is neither a variable's nor doubled, and for more than VARIABLES_MAX variables."""
        self._literals, self._names = _split(text)
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


def _split(text: str) -> tuple[list[str], list[str]]:
    literals, names, literal, end = [], [], "", 0
    for match in _PIECES.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[1]:
            literals.append(literal)
            names.append(match[1])
            literal = ""
        elif match[0] in {"{{", "}}"}:
            literal += match[0][0]
        else:
            message = (
                f"a lone {match[0]} at character {match.start() + 1}: write {{{{ or }}}} for a brace, {{name}} for a variable"
            )
            raise ValueError(message)
    return [*literals, literal + text[end:]], names


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
