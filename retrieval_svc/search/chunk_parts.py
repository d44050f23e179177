"""What a search needs to know about a chunk's bytes."""

from collections.abc import Sequence
from typing import Protocol

from retrieval_svc.values import StoredChunk, Vector


class ChunkParts(Protocol):
    """Reads encoded chunks."""

    def decode(self, encoded: bytes) -> StoredChunk:
        """The chunk of those bytes."""
        ...

    def chunk_id(self, encoded: bytes) -> str:
        """The chunk's own id."""
        ...

    def document_id(self, encoded: bytes) -> str:
        """The id of the document that the chunk came from; empty when there is none."""
        ...

    def text(self, encoded: bytes) -> str:
        """The chunk's text."""
        ...

    def select(self, encoded: bytes, fields: Sequence[str], vector: Vector | None) -> bytes:
        """The chunk with its id and the parts that `fields` names, which are known to exist; none: with every part."""
        ...
