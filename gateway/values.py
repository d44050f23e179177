"""What travels along a flow's edges: the types, the passages, and how any value reads as text or as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import orjson

from penstock.errors import MessageTooLarge

TEXT_CHARS_MAX: Final = 4 * 2**20
"""Longest text that a node makes. Templates and replacements multiply what they are given; this is where it ends."""

DEPTH_MAX: Final = 32
"""Deepest nesting of a JSON value that is read from a text. Protobuf, which carries it on, has a limit of its own."""


class PortType(Enum):
    """The type of what a port gives, and its Python type.

    A text is str; a number float or int, always finite; a boolean bool; documents tuple[Document, ...]; a list (of texts)
    tuple[str, ...]; document_lists tuple[tuple[Document, ...], ...]; json anything that JSON can say.
    """

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DOCUMENTS = "documents"
    DOCUMENT_LISTS = "document_lists"
    LIST = "list"
    JSON = "json"


# What a port of each type takes. Anything else must be converted by a node that says so: documents become text only in a
# prompt or by format_documents, JSON becomes text only in a prompt or by to_text.
ACCEPTED_BY: Final[dict[PortType, frozenset[PortType]]] = {
    PortType.TEXT: frozenset({PortType.TEXT}),
    PortType.NUMBER: frozenset({PortType.NUMBER}),
    PortType.BOOLEAN: frozenset({PortType.BOOLEAN}),
    PortType.DOCUMENTS: frozenset({PortType.DOCUMENTS}),
    PortType.DOCUMENT_LISTS: frozenset({PortType.DOCUMENT_LISTS}),
    PortType.LIST: frozenset({PortType.LIST}),
    PortType.JSON: frozenset({PortType.JSON, PortType.TEXT, PortType.NUMBER, PortType.BOOLEAN, PortType.LIST}),
}
ANYTHING: Final = frozenset(PortType)
"""What an output node and a prompt's variables take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A passage that retrieval found. `score` is nearness in the collection's metric: higher is nearer."""

    chunk_id: str
    document_id: str
    text: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


def as_text(value: object) -> str:
    """Any edge's value as it reads in a prompt: passages numbered from 1, a list a line each, JSON compact."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return _lines(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return orjson.dumps(value).decode()


def _lines(items: tuple[Any, ...]) -> str:
    if items and isinstance(items[0], tuple):
        return _lines(tuple(document for found in items for document in found))
    if items and isinstance(items[0], Document):
        return bounded_join([f"[{number}] {passage.text}" for number, passage in enumerate(items, start=1)], "\n\n")
    return bounded_join(items, "\n")


def as_json(value: object) -> Any:
    """Any edge's value as JSON: passages are objects, tuples are arrays."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Document):
        return {
            "chunk_id": value.chunk_id,
            "document_id": value.document_id,
            "text": value.text,
            "score": value.score,
            "metadata": dict(value.metadata),
        }
    return value


def bounded_join(parts: list[str] | tuple[str, ...], separator: str) -> str:
    """`separator.join(parts)`, counted before it is made. Raises MessageTooLarge."""
    check_chars(sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1))
    return separator.join(parts)


def check_chars(count: int) -> None:
    """Raises MessageTooLarge when a text of `count` characters may not be made."""
    if count > TEXT_CHARS_MAX:
        raise MessageTooLarge(
            f"the text would have {count} characters, more than the {TEXT_CHARS_MAX} that a node may make",
            metadata={"limit": str(TEXT_CHARS_MAX)},
        )


def is_finite(value: Any) -> bool:
    """Whether every number in a JSON value is finite: protobuf can carry others, JSON can't. Does not recurse itself."""
    level = [value]
    while level:
        if any(isinstance(each, float) and not math.isfinite(each) for each in level):
            return False
        level = [child for parent in level if isinstance(parent, dict | list) for child in _children(parent)]
    return True


def is_deeper(value: Any, limit: int) -> bool:
    """Whether a JSON value is nested more than `limit` deep. Does not recurse itself."""
    level = [value]
    for _ in range(limit):
        level = [child for parent in level if isinstance(parent, dict | list) for child in _children(parent)]
        if not level:
            return False
    return True


def _children(parent: dict[str, Any] | list[Any]) -> list[Any]:
    return list(parent.values()) if isinstance(parent, dict) else parent
