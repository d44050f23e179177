"""One document of a corpus, made of the fields of a JSON line or of a Parquet row."""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

ID_FIELDS: Final = ("id", "_id", "doc_id", "docid")
TEXT_FIELDS: Final = ("text", "contents", "content")
VECTOR_FIELDS: Final = ("vector", "embedding")
TITLE_FIELD: Final = "title"
METADATA_FIELD: Final = "metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """How documents are read. `join_title` puts the title before the text, as BEIR's collections are indexed."""

    join_title: bool = False
    file_bytes_max: int = 12 * 2**20
    """Of a file that is one document."""
    line_bytes_max: int = 12 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRecord:
    """A document: a text, or a file's content and its type. `vector` is little-endian float32, empty where there is none.

    `file` and `number` (of the line or the row, from 1; of a file that is one document always 1) say where it stands.
    """

    file: str
    number: int
    place: str
    id: str
    text: str = ""
    content: bytes = b""
    content_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: bytes = b""

    @property
    def size_bytes(self) -> int:
        """About what it takes in a request."""
        return len(self.text) + len(self.content) + len(self.vector) + 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """What could not be read, where, and why."""

    file: str
    number: int
    place: str
    message: str


class BadFieldsError(ValueError):
    """Fields that are no document; the message says why."""


def record_of(fields: Any, *, file: str, number: int, options: ReadingOptions) -> CorpusRecord:
    """The document of a line's or a row's fields. What has no other use is metadata. Raises BadFieldsError."""
    if not isinstance(fields, dict):
        message = f'it must be an object such as {{"id": ..., "text": ...}}; it is a {type(fields).__name__}'
        raise BadFieldsError(message)
    rest = dict(fields)
    identity, text, vector = _identity(rest), _text(rest), _vector(rest)
    title = rest.get(TITLE_FIELD)
    if options.join_title and isinstance(title, str) and title.strip():
        text = f"{title}\n{text}"
    return CorpusRecord(
        file=file,
        number=number,
        place=f"{file}:{number}",
        id=identity,
        text=text,
        metadata=_metadata(rest),
        vector=vector,
    )


def _taken(fields: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Removes and gives the first of these fields that is there; the others stay."""
    name = next((name for name in names if fields.get(name) is not None), None)
    return None if name is None else fields.pop(name)


def _identity(fields: dict[str, Any]) -> str:
    found = _taken(fields, ID_FIELDS)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise BadFieldsError(f"it has no id: give {' or '.join(ID_FIELDS)}, a string or a whole number")
    return str(found)


def _text(fields: dict[str, Any]) -> str:
    found = _taken(fields, TEXT_FIELDS)
    if not isinstance(found, str):
        raise BadFieldsError(f"it has no text: give {' or '.join(TEXT_FIELDS)}, a string")
    if not found.strip():
        raise BadFieldsError("its text has nothing in it")
    return found


def _vector(fields: dict[str, Any]) -> bytes:
    found = _taken(fields, VECTOR_FIELDS)
    if found is None or isinstance(found, bytes):
        return found or b""
    try:
        packed = array("f", found)
    except (TypeError, OverflowError) as error:
        raise BadFieldsError(f"its vector is not a list of numbers: {error}") from error
    return packed.tobytes()


def _metadata(rest: dict[str, Any]) -> dict[str, Any]:
    """What is left of the fields, and the object "metadata", whose keys go before those beside it."""
    given = rest.get(METADATA_FIELD)
    if isinstance(given, dict):
        del rest[METADATA_FIELD]
        rest |= given
    return {key: plain for key, value in rest.items() if (plain := _plain(value)) is not None}


def _plain(value: Any) -> Any:
    """The value as JSON has it: Parquet also has times and decimals. None: there is nothing to say."""
    match value:
        case float():
            plain: Any = value if math.isfinite(value) else None
        case bool() | int() | str():
            plain = value
        case dict():
            plain = {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            plain = [_plain(each) for each in value]
        case datetime() | date() | time():
            plain = value.isoformat()
        case Decimal():
            plain = float(value)
        case _:
            plain = None
    return plain
