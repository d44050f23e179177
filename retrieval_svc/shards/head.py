"""The newest rows of a shard: in memory, searched exactly, added to until they are frozen and written as a segment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import Filter
from retrieval_svc.shards.columns import ColumnBuilder, Key, keys_of
from retrieval_svc.shards.exact import Best, Rows
from retrieval_svc.shards.filtering import Mask, matching
from retrieval_svc.shards.index import Effort, FlatVectors
from retrieval_svc.shards.metrics import Lengths, as_given, prepared
from retrieval_svc.shards.payloads import ChunkCodec
from retrieval_svc.shards.selection import Selection
from retrieval_svc.values import CollectionSpec, Matrix, Metric, Sequences, StoredChunk, UnmetCondition, Visibility

_ROWS_FIRST: Final = 256


class Head:
    """Rows that follow position `after` of the log. Used from one thread; once frozen it may also be read by another.

    Metadata and documents are only looked at when somebody asks for them, and chunks are only encoded when they are found: what
    is never asked for costs a write nothing.
    """

    def __init__(self, spec: CollectionSpec, codec: ChunkCodec, after: int) -> None:
        self.after = after
        self.spec = spec
        self.codec = codec
        self.vectors = FlatVectors.empty(spec.dimension, spec.metric)
        self.chunks: list[StoredChunk] = []
        self._payloads: list[bytes | None] = []
        self._sequences = np.empty(_ROWS_FIRST, np.int64)
        self._lengths = np.empty(_ROWS_FIRST, np.float32)
        self._columns = ColumnBuilder()
        self._columns_end = 0
        self._documents: dict[str, list[int]] = {}
        self._documents_end = 0
        self._restricted = False

    def __len__(self) -> int:
        return len(self.chunks)

    @property
    def sequences(self) -> Sequences:
        """The rows' numbers, ascending."""
        return self._sequences[: len(self)]

    @property
    def lengths(self) -> Lengths | None:
        """Under cosine the lengths of the vectors as they were given."""
        return self._lengths[: len(self)] if self.spec.metric is Metric.COSINE else None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return 4 * self.spec.dimension * len(self) + sum(chunk.size_bytes for chunk in self.chunks)

    def append(self, sequences: Sequences, vectors: Matrix, chunks: Sequence[StoredChunk]) -> None:
        """Takes in rows with higher numbers than all before. `vectors` are as they were given."""
        compared, lengths = prepared(vectors, self.spec.metric)
        self.extend(sequences, compared, lengths, chunks)

    def extend(self, sequences: Sequences, compared: Matrix, lengths: Lengths | None, chunks: Sequence[StoredChunk]) -> None:
        """The same with vectors that are prepared."""
        start, end = len(self), len(self) + len(chunks)
        if end > len(self._sequences):
            self._sequences = _grown(self._sequences, end)
            self._lengths = _grown(self._lengths, end)
        self._sequences[start:end] = sequences
        if lengths is not None:
            self._lengths[start:end] = lengths
        self.vectors.add(compared)
        self._payloads.extend([None] * len(chunks))
        self._restricted = self._restricted or any(chunk.allowed_principals for chunk in chunks)
        self.chunks.extend(chunks)

    def after_position(self, position: int) -> "Head":
        """The rows with higher numbers, in a head of their own; this one if that is all of them."""
        first = int(np.searchsorted(self.sequences, position, side="right"))
        if first == 0 and len(self):
            self.after = max(self.after, position)
            return self
        rest = Head(self.spec, self.codec, max(self.after, position))
        if first < len(self):
            lengths = None if self.lengths is None else self.lengths[first:]
            rest.extend(self.sequences[first:], self.vectors.view()[first:], lengths, self.chunks[first:])
        return rest

    def search(self, queries: Matrix, k: int, effort: Effort, selection: Selection | None) -> Best:  # noqa: ARG002  # Always exact.
        """The best k of each prepared query, among the selected rows."""
        return self.vectors.search(queries, k, None if selection is None else selection.rows)

    def search_rows(self, queries: Matrix, k: int, rows: Rows) -> Best:
        """The best k of each prepared query among some rows."""
        return self.vectors.search(queries, k, rows)

    def rows_of(self, document_id: str, codec: ChunkCodec) -> Rows:  # noqa: ARG002  # Chunks are not encoded here.
        """The rows of a document, ascending."""
        for row in range(self._documents_end, len(self)):
            self._documents.setdefault(self.chunks[row].document_id, []).append(row)
        self._documents_end = len(self)
        return np.array(self._documents.get(document_id, ()), np.int64)

    def matching(self, filter_: Filter | None, visibility: Visibility) -> tuple[Mask | None, tuple[UnmetCondition, ...]]:
        """The rows that match and may be seen, None for all of them."""
        if filter_ is None and not (self._restricted and visibility.principals is not None):
            return None, ()
        for row in range(self._columns_end, len(self)):
            chunk = self.chunks[row]
            self._columns.add(row, chunk.metadata_json, chunk.allowed_principals)
        self._columns_end = len(self)
        return matching(self._columns, len(self), filter_, visibility)

    def keys(self, rows: Rows | None = None) -> Iterator[Key]:
        """The fields of rows, with the kinds of their values; None: of all rows."""
        chunks = self.chunks if rows is None else [self.chunks[row] for row in rows.tolist()]
        return chain.from_iterable(keys_of(chunk.metadata_json) for chunk in chunks)

    def payloads(self, rows: Rows) -> list[bytes]:
        """The encoded chunks of rows."""
        return [self._payload(row) for row in rows.tolist()]

    def vectors_as_given(self, rows: Rows) -> Matrix:
        """The vectors of rows."""
        return as_given(self.vectors.view()[rows], None if self.lengths is None else self.lengths[rows])

    def _payload(self, row: int) -> bytes:
        payload = self._payloads[row]
        if payload is None:
            payload = self._payloads[row] = self.codec.encode(self.chunks[row])
        return payload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenHead:
    """A head that no longer grows, and which of its rows to write. Another thread may write it while it is searched.

    `name` is its segment's, `position` the shard's when it was frozen: rows that go after that are tombstones of the segment.
    """

    head: Head
    name: str
    position: int
    rows: Rows


def frozen(head: Head, position: int, gone: Mask | None) -> FrozenHead:
    """Freezes a head, whose rows that are gone already are not written."""
    rows = np.arange(len(head)) if gone is None else np.flatnonzero(~gone)
    return FrozenHead(head=head, name=segment_name(), position=position, rows=rows)


def segment_name() -> str:
    """A name that no segment had before."""
    return f"segment-{uuid4().hex}"


def _grown(values: NDArray[Any], size: int) -> NDArray[Any]:
    grown = np.empty(max(size, 2 * len(values)), values.dtype)
    grown[: len(values)] = values
    return grown
