"""Templates as LangFlow writes them: Python's format strings, or {{variables}} with braces that are braces.

Only the names are read: what else a format string could do (attributes, indexes, conversions, formats) is refused, and
nothing is ever formatted here.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Final

_DOUBLE: Final = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Written:
    """A template: texts, each with the variable that follows it. The last has none."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """Their names, each once, in the order of the text."""
        return tuple(dict.fromkeys(name for _, name in self.pieces if name is not None))

    def ours(self, names: Callable[[str], str]) -> str:
        """The template as a prompt node has it, the variables named by `names`."""
        return "".join(_doubled(text) + ("" if name is None else f"{{{names(name)}}}") for text, name in self.pieces)


def format_string(text: str) -> Written:
    """Raises ValueError where the text is not a format string of plain names."""
    pieces: list[tuple[str, str | None]] = []
    for literal, name, form, conversion in Formatter().parse(text):
        if form or conversion or (name is not None and re.search(r"[.\[\]]", name)):
            message = f"{{{name}}} has a format, an attribute or an index"
            raise ValueError(message)
        if name is not None and not name.strip():
            message = "{} names no variable"
            raise ValueError(message)
        pieces.append((literal, name))
    return Written((*pieces, ("", None)))


def double_braces(text: str) -> Written:
    """A text whose variables stand in double braces."""
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for match in _DOUBLE.finditer(text):
        pieces.append((text[end : match.start()], match[1]))
        end = match.end()
    return Written((*pieces, (text[end:], None)))


def plain_names(variables: Iterable[str]) -> dict[str, str]:
    """For each variable a name that an input port may have, the variable's own where it may."""
    names: dict[str, str] = {}
    for variable in variables:
        simple = re.sub(r"\W", "_", variable, flags=re.ASCII)[:60]
        wanted = variable if _NAME.fullmatch(variable) else simple if _NAME.fullmatch(simple) else f"v_{simple}"
        taken, number = set(names.values()), 2
        name = wanted
        while name in taken:
            name, number = f"{wanted[:60]}_{number}", number + 1
        names[variable] = name
    return names


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
