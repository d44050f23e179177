"""Markdown's headings: where a document's sections begin and under which headings each stands.

Pure. Reads what decides where a section ends, and no more of Markdown: headings ("## Install", or a line underlined with = or
-), fenced code, whose lines are code whatever they look like, and a block of metadata (--- to ---) at the very beginning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

_LEVEL_MAX: Final = 6
_TITLE_MAX: Final = 200
"""Characters of a heading; a longer line is text, whatever it begins with. Headings are repeated, and kept as metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading: its level from 1, and its words without marks."""

    level: int
    title: str

    @property
    def line(self) -> str:
        """It as a line of Markdown."""
        return f"{'#' * self.level} {self.title}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands below a heading and above the next. `headings` are those it stands under, outermost first, its own last."""

    headings: tuple[Heading, ...]
    body: str


def sections(text: str) -> list[Section]:
    """The sections of a text in order: every line is in one of their bodies or is one of their headings."""
    found: list[Section] = []
    headings: tuple[Heading, ...] = ()
    body: list[str] = []
    for line, heading in _lines(text):
        if heading is None:
            body.append(line)
            continue
        found.append(Section(headings=headings, body="\n".join(body)))
        headings = (*(outer for outer in headings if outer.level < heading.level), heading)
        body = []
    found.append(Section(headings=headings, body="\n".join(body)))
    return [
        replace(section, body=section.body.strip())
        for at, section in enumerate(found)
        if section.body.strip() or (section.headings and not _goes_on(section, found[at + 1 :][:1]))
    ]


def _goes_on(section: Section, following: list[Section]) -> bool:
    """Whether the next section stands under this one's heading, and so tells it as well."""
    return bool(following) and following[0].headings[: len(section.headings)] == section.headings


def _lines(text: str) -> Iterator[tuple[str, Heading | None]]:
    """Each line with the heading that it is. A line that is underlined comes once, the line below it not at all."""
    lines = text.replace("\r\n", "\n").split("\n")
    at, fence = _metadata_lines(lines), ""
    yield from ((line, None) for line in lines[:at])
    while at < len(lines):
        line = lines[at]
        if fence:
            fence = "" if _closes(line, fence) else fence
            yield line, None
        elif fence := _opened_fence(line):
            yield line, None
        elif level := _underlined(lines, at):
            yield line, Heading(level=level, title=line.strip())
            at += 1
        else:
            yield line, _marked(line)
        at += 1


def _metadata_lines(lines: list[str]) -> int:
    """How many lines the block of metadata at the beginning has."""
    if lines[0].rstrip() != "---":
        return 0
    ends = (at for at, line in enumerate(lines[1:], 2) if line.rstrip() in {"---", "..."})
    return next(ends, 0)


def _opened_fence(line: str) -> str:
    """The marks with which a line opens a block of code."""
    content = line.lstrip(" ")
    mark = content[:1]
    if len(line) - len(content) > 3 or mark not in {"`", "~"}:
        return ""
    length = len(content) - len(content.lstrip(mark))
    inline = mark == "`" and "`" in content[length:]  # ```like this``` is a span of code within a paragraph.
    return mark * length if length >= 3 and not inline else ""


def _closes(line: str, fence: str) -> bool:
    content = line.strip()
    return len(content) >= len(fence) and not content.strip(fence[0])


def _marked(line: str) -> Heading | None:
    """The heading of a line that begins with one to six number signs."""
    content = line.lstrip(" ")
    level = len(content) - len(content.lstrip("#"))
    if len(line) - len(content) > 3 or not 1 <= level <= _LEVEL_MAX or content[level : level + 1] not in {"", " ", "\t"}:
        return None
    title = content[level:].strip()
    if len(title) > _TITLE_MAX:
        return None
    bare = title.rstrip("#")
    closed = not bare or bare[-1] in " \t"  # "## Title ##" is closed; "## C#" is not.
    return Heading(level=level, title=bare.rstrip() if closed else title)


def _underlined(lines: list[str], at: int) -> int:
    """1 or 2 where the next line is nothing but = or -, and this one is a paragraph of one line; else 0."""
    if at + 1 == len(lines) or (at and lines[at - 1].strip()):
        return 0
    line, below = lines[at], lines[at + 1].strip()
    if len(below) < 2 or below.strip(below[0]) or not _is_paragraph(line):
        return 0
    return {"=": 1, "-": 2}.get(below[0], 0)


def _is_paragraph(line: str) -> bool:
    others = ("    ", "\t", ">", "- ", "* ", "+ ")
    return 0 < len(line.strip()) <= _TITLE_MAX and not line.startswith(others) and _marked(line) is None
