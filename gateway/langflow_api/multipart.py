"""multipart/form-data as far as an API needs it: the fields of a small form, each whole and in memory (RFC 7578)."""

import re
from dataclasses import dataclass
from typing import Final

from penstock.errors import MalformedRequest

PARTS_MAX: Final = 64
_HEAD_BYTES_MAX: Final = 8 * 1024
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'[;\s]name="([^"\r\n]{0,256})"', re.IGNORECASE)
_FILE: Final = re.compile(rb'[;\s]filename="([^"\r\n]{0,1024})"', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field. `filename` is None where it is no file."""

    data: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        """The field as text."""
        return self.data.decode("utf-8", "replace")


def fields(body: bytes, content_type: str) -> dict[str, Part]:
    """The form's fields by their names; of several with one name the last. Raises MalformedRequest."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise MalformedRequest("the content-type multipart/form-data has no boundary")
    boundary = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(boundary, PARTS_MAX + 1)
    if len(pieces) > PARTS_MAX + 1:
        raise MalformedRequest(f"the form has more than {PARTS_MAX} parts")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise MalformedRequest("the form does not end with its boundary")
    return dict(_part(piece) for piece in pieces[1:-1])


def _part(piece: bytes) -> tuple[str, Part]:
    head, blank, data = piece.partition(b"\r\n\r\n")
    name = _NAME.search(head) if len(head) <= _HEAD_BYTES_MAX else None
    if not blank or name is None:
        raise MalformedRequest("a part of the form has no name")
    file = _FILE.search(head)
    return name[1].decode("utf-8", "replace"), Part(data=data, filename=file and file[1].decode("utf-8", "replace"))
