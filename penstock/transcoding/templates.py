"""Path templates of google.api.http, and the part of a URL path that each variable takes.

    Template = "/" Segments [ ":" Verb ]       /v1/{name=flows/*}:run
    Segments = Segment { "/" Segment }
    Segment  = "*" | "**" | literal | "{" FieldPath [ "=" Segments ] "}"

`*` is one segment, never empty; `**` is all that is left, also nothing, and stands last. A variable of one segment is decoded
whole. A variable of several keeps "%2F" as it is, so that a slash inside a segment stays apart from the slashes between them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

_PIECE = re.compile(r"/(?:\{(?P<variable>[^{}=]+)(?:=(?P<inside>[^{}]+))?\}|(?P<segment>[^{}/]+))")
_FIELD_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_VERB = re.compile(r":([^/:{}*]+)$")
_ENCODED_SLASH = re.compile("(%2[Ff])")


class InvalidTemplate(ValueError):
    """The template is not of the grammar."""


class Wildcard(Enum):
    """A segment that is not a literal."""

    ONE = "*"
    REST = "**"


Segment = str | Wildcard
"""A literal, decoded, or a wildcard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A field that takes the segments from `start` up to `stop` (None: all that are left)."""

    field_path: tuple[str, ...]
    start: int
    stop: int | None

    def capture(self, segments: Sequence[str]) -> str:
        """The variable's value in a path that has matched. Raises UnicodeDecodeError when it is not UTF-8."""
        if self.stop == self.start + 1:
            return decode_segment(segments[self.start])
        return "/".join(_decode_but_slashes(segment) for segment in segments[self.start : self.stop])


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed path template. `verb` is empty when there is none."""

    text: str
    segments: tuple[Segment, ...]
    verb: str
    variables: tuple[Variable, ...]


def parse_template(text: str) -> Template:
    """Reads one template. Raises InvalidTemplate."""
    verb = _VERB.search(text)
    path = text[: verb.start()] if verb else text
    segments: list[Segment] = []
    variables: list[Variable] = []
    for field_path, inside in _pieces(path, text):
        start = len(segments)
        segments.extend(_segment(part, text) for part in inside.split("/"))
        if field_path:
            stop = None if segments[-1] is Wildcard.REST else len(segments)
            variables.append(Variable(field_path=tuple(field_path.split(".")), start=start, stop=stop))
    if Wildcard.REST in segments[:-1]:
        raise InvalidTemplate(f"{text!r}: ** must be the last segment")
    if len({variable.field_path for variable in variables}) < len(variables):
        raise InvalidTemplate(f"{text!r}: a field is bound twice")
    return Template(text=text, segments=tuple(segments), verb=verb.group(1) if verb else "", variables=tuple(variables))


def decode_segment(segment: str) -> str:
    """One segment of a URL path, percent-decoded. Raises UnicodeDecodeError when it is not UTF-8."""
    return unquote(segment, errors="strict") if "%" in segment else segment


def _pieces(path: str, text: str) -> Iterator[tuple[str, str]]:
    """(field path or "", segments) of each part between the slashes outside braces."""
    position = 0
    while position < len(path) or not path:
        piece = _PIECE.match(path, position)
        if piece is None:
            raise InvalidTemplate(f"{text!r} is not a path template at character {position}")
        variable = piece["variable"] or ""
        if variable and not _FIELD_PATH.fullmatch(variable):
            raise InvalidTemplate(f"{text!r}: {variable!r} is not a field path")
        yield variable, piece["segment"] or piece["inside"] or "*"
        position = piece.end()


def _segment(part: str, text: str) -> Segment:
    if part in ("*", "**"):
        return Wildcard(part)
    if not part or "*" in part:
        raise InvalidTemplate(f"{text!r}: {part!r} is neither a literal nor a wildcard")
    return decode_segment(part)


def _decode_but_slashes(segment: str) -> str:
    if "%" not in segment:
        return segment
    return "".join(part if _ENCODED_SLASH.fullmatch(part) else decode_segment(part) for part in _ENCODED_SLASH.split(segment))
