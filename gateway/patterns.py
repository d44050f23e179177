"""Regular expressions of a flow, by RE2: they take time that grows with the text, never exponentially, whatever the pattern.

The only importer of re2. https://github.com/google/re2/wiki/Syntax is the syntax; it has no look-around and no back-references.
"""

import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import re2

from gateway.values import check_chars
from penstock.errors import FailedPrecondition, MessageTooLarge

PATTERN_CHARS_MAX: Final = 1000
PROGRAM_SIZE_MAX: Final = 3000
"""Instructions that a pattern compiles to: what it costs at each character of a text, at worst."""

WORK_MAX: Final = 2 * 10**7
"""Longest text times instructions. One search takes about as many steps at worst, of 10 to 15 ns each; mostly far fewer."""

CPU_S_MAX: Final = 0.25
"""How long the matches of one text are looked for. A pattern can read all of the rest again for each match."""

_MEMORY_BYTES_MAX: Final = 2**20
_GROUP: Final = re.compile(r"\\(?:([0-9]{1,2})|g<([A-Za-z0-9_]{1,64})>|(\\))")


class Pattern:
    """A compiled pattern. `instructions` is what it compiles to, `groups` how many it has, `names` the numbers of the named."""

    __slots__ = ("_compiled", "groups", "instructions", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError where the text is not a pattern, or too large a one."""
        self.text = text
        self._compiled = _compiled(text)
        self.instructions: int = self._compiled.programsize
        self.groups: int = self._compiled.groups
        self.names: dict[str, int] = self._compiled.groupindex

    def group(self, wanted: int | str) -> int:
        """The number of a group that is given by its number or name. Raises ValueError."""
        number = self.names.get(wanted, -1) if isinstance(wanted, str) else wanted
        if not 0 <= number <= self.groups:
            named = f", named {', '.join(self.names)}" if self.names else ""
            message = f"the pattern has no group {wanted!r}; it has {self.groups}{named}, and 0 is all that matched"
            raise ValueError(message)
        return number

    def test(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text. Raises MessageTooLarge."""
        self._check(text)
        return self._compiled.search(text) is not None

    def matches(self, text: str) -> Iterator[Any]:
        """The matches from left to right, as re.Match has them. Raises MessageTooLarge, FailedPrecondition."""
        self._check(text)
        until = time.thread_time() + CPU_S_MAX
        for match in self._compiled.finditer(text):
            if time.thread_time() > until:
                raise FailedPrecondition(
                    f"the pattern {self.text[:80]!r} took more than {CPU_S_MAX} s over this text; match fewer or shorter pieces"
                )
            yield match

    def _check(self, text: str) -> None:
        chars_max = WORK_MAX // max(1, self.instructions)
        if len(text) > chars_max:
            raise MessageTooLarge(
                f"the text has {len(text)} characters; the pattern {self.text[:80]!r} is used on at most {chars_max}",
                metadata={"limit": str(chars_max)},
            )


class Replacement:
    r"""What stands in the place of a match: \1 to \99 and \g<name> are its groups, \0 all of it, \\ a backslash."""

    __slots__ = ("_groups", "_literals")

    def __init__(self, text: str, pattern: Pattern) -> None:
        """Raises ValueError for a group that the pattern has not, and for any other backslash."""
        self._literals: list[str] = []
        self._groups: list[int] = []
        literal, end = "", 0
        for match in _GROUP.finditer(text):
            literal += _plain(text[end : match.start()])
            end = match.end()
            if match[3]:
                literal += "\\"
                continue
            self._literals.append(literal)
            self._groups.append(pattern.group(int(match[1]) if match[1] else _number_or_name(match[2])))
            literal = ""
        self._literals.append(literal + _plain(text[end:]))

    def of(self, match: Any) -> str:
        """The text in the place of the match."""
        parts = [self._literals[0]]
        for group, literal in zip(self._groups, self._literals[1:], strict=True):
            parts += (match[group] or "", literal)
        return "".join(parts)


def replaced(text: str, pattern: Pattern, replacement: Replacement, most: int) -> str:
    """The text with its first `most` matches replaced. Raises MessageTooLarge, FailedPrecondition."""
    parts: list[str] = []
    end = chars = 0
    for number, match in enumerate(pattern.matches(text)):
        if number == most:
            break
        parts += (text[end : match.start()], replacement.of(match))
        end = match.end()
        chars += len(parts[-2]) + len(parts[-1])
        check_chars(chars)
    parts.append(text[end:])
    check_chars(chars + len(parts[-1]))
    return "".join(parts)


def checked(text: str) -> str:
    """The text, if it is a pattern. Raises ValueError."""
    Pattern(text)
    return text


@lru_cache(maxsize=64)
def _compiled(text: str) -> Any:
    if not 1 <= len(text) <= PATTERN_CHARS_MAX:
        message = f"a pattern has 1 to {PATTERN_CHARS_MAX} characters; this one has {len(text)}"
        raise ValueError(message)
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except (re2.error, UnicodeError) as error:
        reason = error.args[0] if isinstance(error, re2.error) else error
        message = f"not a regular expression of RE2: {reason.decode() if isinstance(reason, bytes) else reason}"
        raise ValueError(message) from error
    if compiled.programsize > PROGRAM_SIZE_MAX:
        message = f"the pattern is too large: {compiled.programsize} instructions, at most {PROGRAM_SIZE_MAX}; repeat less"
        raise ValueError(message)
    return compiled


def _plain(text: str) -> str:
    if "\\" in text:
        message = r"a lone backslash: write \\ for one, \1 or \g<name> for a group"
        raise ValueError(message)
    return text


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdigit() else text
