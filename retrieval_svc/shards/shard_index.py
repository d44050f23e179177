"""One shard on one node: all rows of one part of a collection, searched by their vectors.

    ShardIndex
      segments   immutable, memory-mapped folders (segment.py), shared by the processes of a host
      frozen     heads that no longer grow and are being written as segments (head.py)
      head       the newest rows, exact, in memory
      tombstones of each layer: which of its rows are gone

How the node drives it. `I`: on the index thread, one call at a time; `any`: on any thread, while searches go on.

    start        I    shard = ShardIndex.open(folder, spec=..., shard=..., codec=...)
    follow       I    shard.apply(changes)
    seal         I    frozen = shard.freeze_head()
                 any  entry = write_segment(frozen, folder)
                 I    manifest = shard.next_manifest(added=[entry])
                 any  publish(folder, manifest); layers = open_segments(folder, manifest)
                 I    shard.adopt(manifest, layers)
    compact      I    plan = shard.plan_compaction()
                 any  write_plan(plan, path); run `python -m retrieval_svc.shards.compaction path`; entry = read_result(plan)
                 I    manifest = shard.next_manifest(added=[entry], replaced=plan.inputs), then as above
    other workers of the host
                 any  manifest = newest(folder); layers = open_segments(folder, manifest)
                 I    shard.adopt(manifest, layers)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from retrieval_svc.filters import Filter
from retrieval_svc.values import (
    Changes,
    CollectionSpec,
    FetchedRows,
    MatchedRows,
    Ranked,
    Sequences,
    ShardQuery,
    ShardStatus,
    StoredChunk,
    UnmetCondition,
    Visibility,
)


class ChunkCodec(Protocol):
    """Between a chunk and the bytes that searches answer with. Both are pure and may run on any thread."""

    def encode(self, chunk: StoredChunk) -> bytes:
        """A chunk without its vector."""
        ...

    def decode(self, data: bytes) -> StoredChunk:
        """The chunk that was encoded."""
        ...


class ShardIndex:
    """The rows of one shard. Not thread-safe: every method runs on the index thread, one at a time."""

    @classmethod
    def open(cls, folder: Path, *, spec: CollectionSpec, shard: int, codec: ChunkCodec, threads: int = 1) -> Self:
        """The newest valid checkpoint in `folder`, or an empty shard at position 0 where there is none.

        A checkpoint with a fault is skipped with a warning for the one before it. `threads` is OpenMP's number for searches of
        the calling thread.
        """
        raise NotImplementedError

    @property
    def position(self) -> int:
        """Sequence number of the last change that searches see."""
        raise NotImplementedError

    @property
    def row_count(self) -> int:
        """Rows that searches can find."""
        raise NotImplementedError

    @property
    def head_row_count(self) -> int:
        """Rows in the head, gone ones among them; at about 8,000 it is time to freeze it."""
        raise NotImplementedError

    def apply(self, changes: Changes) -> None:
        """Brings the shard to `changes.through`. What it has already is left out; a gap before `after` raises ValueError."""
        raise NotImplementedError

    def search(self, queries: Sequence[ShardQuery]) -> "list[tuple[Ranked, tuple[UnmetCondition, ...]]]":
        """The nearest rows to each query's vector: best first, ties by sequence number, at most `limit`, never a gone one.

        Queries with equal parameters go through each layer in one call of FAISS's. A query without a vector finds nothing.
        """
        raise NotImplementedError

    def match(self, filter_: Filter, visibility: Visibility) -> MatchedRows:
        """The numbers of all rows that match."""
        raise NotImplementedError

    def fetch(self, sequences: Sequences, *, with_vectors: bool = False) -> FetchedRows:
        """Rows by number, in the order asked for; those that are gone are left out."""
        raise NotImplementedError

    def status(self) -> ShardStatus:
        """The state of the shard. `record_position` is what it has itself; the node knows the record's."""
        raise NotImplementedError

    def freeze_head(self) -> "FrozenHead | None":
        """Starts a new head and gives the old one to write as a segment; None where it has no rows."""
        raise NotImplementedError

    def next_manifest(
        self, *, added: "Sequence[SegmentEntry]" = (), replaced: Sequence[str] = (), attachments: "Sequence[FileEntry]" = ()
    ) -> "Manifest":
        """What a checkpoint now would say, at the position up to which all rows are in segments."""
        raise NotImplementedError

    def adopt(self, manifest: "Manifest", layers: "Sequence[Segment] | None" = None) -> None:
        """Takes over a checkpoint's segments and tombstones; own later rows and removals stay.

        A shard that is behind the checkpoint is at its position afterwards. `layers` are its segments, opened before.
        """
        raise NotImplementedError

    def plan_compaction(self, *, force: bool = False) -> "CompactionPlan | None":
        """Which segments to merge now; None: none. `force`: all into one, gone rows dropped."""
        raise NotImplementedError
