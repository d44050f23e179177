"""The encoded chunks of a segment's rows, one after another in one file, and where each ends in another."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.shards.exact import BLOCK_ROWS, Rows
from retrieval_svc.values import StoredChunk

Number = TypeVar("Number", bound=np.generic)

BLOB: Final = "payloads.bin"
ENDS: Final = "payload_ends.i64"


class ChunkCodec(Protocol):
    """Between a chunk and the bytes that searches answer with. All is pure and may run on any thread."""

    def encode(self, chunk: StoredChunk) -> bytes:
        """A chunk without its vector."""
        ...

    def decode(self, data: bytes) -> StoredChunk:
        """The chunk that was encoded."""
        ...

    def document_id(self, data: bytes, /) -> str:
        """The id of the document that the chunk came from; empty when there is none."""
        ...


class Payloads:
    """The payloads of a segment, mapped. May be read by several threads at the same time."""

    def __init__(self, folder: Path) -> None:
        ends = mapped(folder / ENDS, np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        self._blob = _mapped_bytes(folder / BLOB)

    def all(self) -> Iterator[bytes]:
        """All payloads, one after another."""
        for first in range(0, len(self._starts) - 1, BLOCK_ROWS):
            yield from self.at(np.arange(first, min(first + BLOCK_ROWS, len(self._starts) - 1)))

    def at(self, rows: Rows) -> list[bytes]:
        """The payloads of rows, in their order."""
        starts, ends = self._starts[rows].tolist(), self._starts[rows + 1].tolist()
        return [self._blob[start:end] for start, end in zip(starts, ends, strict=True)]


class PayloadWriter:
    """Writes payloads in the order of their rows."""

    def __init__(self, blob: BinaryIO, ends: BinaryIO) -> None:
        self._blob = blob
        self._ends = ends
        self._size = 0

    def add(self, payloads: Sequence[bytes]) -> None:
        """Appends those of the next rows."""
        ends = np.cumsum([len(payload) for payload in payloads], dtype=np.int64) + self._size
        self._blob.writelines(payloads)
        self._ends.write(ends.tobytes())
        self._size = int(ends[-1]) if len(ends) else self._size


def mapped(path: Path, dtype: type[Number]) -> NDArray[Number]:
    """A file of numbers as a read-only array, nothing of it read yet."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _mapped_bytes(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # Nothing cannot be mapped.
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
