"""Chunks as the shards keep them and as answers carry them: encoded penstock.retrieval.v1.Chunk.

A chunk is encoded once, when a shard takes it in, without its vector and its access list, which answers leave out; a search
hands those bytes on.
"""

from collections.abc import Sequence
from typing import Final

import orjson

from penstock.errors import InvalidArgument, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.struct_json import json_of
from retrieval_svc.values import Chunk, StoredChunk, Vector

_PARTS: Final = frozenset({"text", "document_id", "metadata", "vector"})
STORED_PARTS: Final = frozenset({"allowed_principals"})
"""What the record has of a chunk besides, and searches have not."""


class ChunkCodec:
    """Implements the codec ports of the shards and of the search."""

    def encode(self, chunk: StoredChunk) -> bytes:
        """The chunk's bytes. Its sequence number and access list are not among them."""
        return chunk_message(chunk).SerializeToString()

    def decode(self, encoded: bytes, sequence: int = 0) -> StoredChunk:
        """The chunk of those bytes, its access list empty."""
        message = pb.Chunk.FromString(encoded)
        return StoredChunk(
            sequence=sequence,
            id=message.id,
            document_id=message.document_id,
            text=message.text,
            metadata_json=json_of(message.metadata, "metadata"),
        )

    def chunk_id(self, encoded: bytes) -> str:
        """The chunk's own id."""
        return pb.Chunk.FromString(encoded).id

    def document_id(self, encoded: bytes) -> str:
        """The id of the document that the chunk came from."""
        return pb.Chunk.FromString(encoded).document_id

    def text(self, encoded: bytes) -> str:
        """The chunk's text."""
        return pb.Chunk.FromString(encoded).text

    def select(self, encoded: bytes, fields: Sequence[str], vector: Vector | None = None) -> bytes:
        """The chunk with its id and the parts that `fields` names; none: with every part but the vector."""
        return selected(pb.Chunk.FromString(encoded), fields, vector).SerializeToString()


def chunk_message(chunk: StoredChunk) -> pb.Chunk:
    """A chunk as it is kept."""
    message = pb.Chunk(id=chunk.id, document_id=chunk.document_id, text=chunk.text)
    if chunk.metadata_json:
        message.metadata.update(orjson.loads(chunk.metadata_json))
    return message


def stored_message(chunk: StoredChunk, fields: Sequence[str] = (), vector: Vector | None = None) -> pb.Chunk:
    """A chunk that was read from the record, with the parts that `fields` names; none: all but the vector.

    The access list is among them: a chunk that is read, changed and stored again is not to lose it.
    """
    message = selected(chunk_message(chunk), fields, vector)
    if not fields or "allowed_principals" in fields:
        message.allowed_principals.extend(chunk.allowed_principals)
    return message


def check_fields(fields: Sequence[str], *, also: frozenset[str] = frozenset(), field: str = "fields") -> None:
    """Raises InvalidArgument for a part that a chunk does not have."""
    known = _PARTS | also | {"id"}
    for at, name in enumerate(fields):
        if name not in known and not (name.startswith("metadata.") and len(name) > len("metadata.")):
            message = f"a chunk has no part {name!r}; its parts are {', '.join(sorted(known))} and metadata.KEY"
            violation = Violation(message=message, field=f"{field}[{at}]")
            raise InvalidArgument(message, metadata={"field": violation.field}, violations=[violation])


def selected(message: pb.Chunk, fields: Sequence[str], vector: Vector | None = None) -> pb.Chunk:
    """The message with its id and the parts that `fields` names, changed in place; none: as it is."""
    if not fields:
        return message
    keys = {name.partition(".")[2] for name in fields if name.startswith("metadata.")}
    if "text" not in fields:
        message.ClearField("text")
    if "document_id" not in fields:
        message.ClearField("document_id")
    if "metadata" not in fields:
        for key in set(message.metadata.fields) - keys:
            del message.metadata.fields[key]
        if not keys:
            message.ClearField("metadata")
    if vector is not None and "vector" in fields:
        message.vector = vector.astype("<f4", copy=False).tobytes()
    return message


def chunk_from(message: pb.Chunk, at: int) -> Chunk:
    """The chunk at a place of a request."""
    return Chunk(
        id=message.id,
        document_id=message.document_id,
        text=message.text,
        metadata_json=json_of(message.metadata, f"chunks[{at}].metadata"),
        vector=message.vector,
        allowed_principals=tuple(message.allowed_principals),
    )
