"""URLs with variables, which may stand in the path and the query: whom a flow asks, its writer alone says.

A value is percent-encoded, so that it ends no segment and begins no query; in a path it is neither empty nor a way up.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from gateway.values import check_chars
from penstock.errors import InvalidArgument

URL_CHARS_MAX: Final = 4096
RENDERED_CHARS_MAX: Final = 16_384
_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_SHAPE: Final = re.compile(r"(https?://[A-Za-z0-9._\[\]:-]+)(/[^?#]*)?(\?[^#]*)?")
_LITERAL: Final = re.compile(r"[!-z|~]*")
"""What may stand in a URL as it is: printable ASCII without spaces and without the braces of variables."""


class UrlTemplate:
    """A parsed URL. `variables` are in the order in which they first stand in it."""

    __slots__ = ("_origin", "_path", "_query", "variables")

    def __init__(self, text: str) -> None:
        """Raises ValueError where a variable stands before the path, and for what is no URL."""
        shape = _SHAPE.fullmatch(text)
        if shape is None or len(text) > URL_CHARS_MAX:
            message = (
                "must be http:// or https://, a host, then a path and a query, in which alone {variables} may stand, and at "
                f"most {URL_CHARS_MAX} characters"
            )
            raise ValueError(message)
        self._origin, self._path, self._query = shape[1], _split(shape[2] or "/"), _split(shape[3] or "")
        self.variables = tuple(dict.fromkeys((*self._path[1::2], *self._query[1::2])))

    def render(self, values: Mapping[str, str]) -> str:
        """The URL with the values in place. Raises InvalidArgument for one that would lead out of its place in the path."""
        for name in self._path[1::2]:
            _check_segment(name, values[name])
        url = self._origin + _filled(self._path, values) + _filled(self._query, values)
        if len(url) > RENDERED_CHARS_MAX:
            raise InvalidArgument(f"the URL would have {len(url)} characters; at most {RENDERED_CHARS_MAX}")
        return url


def _split(text: str) -> list[str]:
    """Literals and, at the odd places, names of variables."""
    parts = _VARIABLE.split(text)
    for literal in parts[::2]:
        if not _LITERAL.fullmatch(literal):
            message = "has a character that must be percent-encoded in a URL; {name} is a variable"
            raise ValueError(message)
    return parts


def _filled(parts: list[str], values: Mapping[str, str]) -> str:
    check_chars(sum(len(values[name]) for name in parts[1::2]))
    return "".join(quote(values[part], safe="") if index % 2 else part for index, part in enumerate(parts))


def _check_segment(name: str, value: str) -> None:
    if not value or any(part in {".", ".."} for part in re.split(r"[/\\]", value)):
        raise InvalidArgument(f"the variable {name!r} would be {value[:80]!r} in the path of a URL, which leads elsewhere")


def checked(text: str) -> str:
    """The text, if it is a URL with variables. Raises ValueError."""
    UrlTemplate(text)
    return text
