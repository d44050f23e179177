"""Chunks that were written or found lately, so that a hit costs no SQL."""

from collections import OrderedDict
from typing import Final

from retrieval_svc.values import StoredChunk

Key = tuple[int, int]
"""A collection's uid and a sequence number. Neither is ever used again, so an entry never goes stale."""

_COPIES: Final = 2
"""What is kept of each chunk: the value itself and, by whoever encodes it, its message."""


class ChunkCache:
    """The least recently used chunks go when the others are over `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._chunks: OrderedDict[Key, StoredChunk] = OrderedDict()

    def get(self, key: Key) -> StoredChunk | None:
        """The chunk, if it is here."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def put(self, key: Key, chunk: StoredChunk) -> None:
        """Keeps the chunk."""
        if key not in self._chunks:
            self._bytes += chunk.size_bytes * _COPIES
        self._chunks[key] = chunk
        while self._bytes > self._bytes_max:
            _, dropped = self._chunks.popitem(last=False)
            self._bytes -= dropped.size_bytes * _COPIES
