"""One shard on one node: all rows of one part of a collection, searched by their vectors.

    ShardIndex
      segments   immutable, memory-mapped folders (segment.py), shared by the processes of a host
      frozen     heads that no longer grow and are being written as segments (head.py)
      head       the newest rows, exact, in memory
      tombstones of each layer: which of its rows are gone (layers.py)

Rows are in the order of their sequence numbers, from the first segment to the head. How the node drives it, where `I` is the
index thread, one call at a time, and `any` is any thread, while searches go on:

    start        any  checkpoint.sweep(folder), in the process that leads and before anything else
                 I    shard = ShardIndex.open(folder, spec=..., shard=..., codec=...)
    follow       I    shard.apply(changes)
    seal         I    frozen = shard.freeze_head()
                 any  entry = write_segment(frozen, folder)
                 I    manifest = shard.next_manifest(added=[entry])
                 any  manifest = publish(folder, manifest); segments = open_segments(folder, manifest)
                 I    shard.adopt(manifest, segments)
    compact      I    plan = shard.plan_compaction()
                 any  path = write_plan(plan, folder); python -m retrieval_svc.shards.compaction PATH
                 any  entry = read_result(plan)
                 I    manifest = shard.next_manifest(added=[entry], replaced=plan.inputs), then as above
    other workers of the host, where checkpoint.current_name(folder) is a new one
                 any  manifest = newest(folder); segments = open_segments(folder, manifest)
                 I    shard.adopt(manifest, segments)

A manifest is adopted before the next one of the shard is made. A compaction may be under way meanwhile: heads go on being
sealed while it merges.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from retrieval_svc.filters import Filter
from retrieval_svc.shards.checkpoint import Manifest, load, open_segments
from retrieval_svc.shards.columns import Key
from retrieval_svc.shards.compaction_policy import CompactionPlan, plan_for
from retrieval_svc.shards.disk import FileEntry
from retrieval_svc.shards.head import FrozenHead, Head, frozen
from retrieval_svc.shards.index import use_threads
from retrieval_svc.shards.known_fields import KnownFields
from retrieval_svc.shards.layered_search import Found, search_layers
from retrieval_svc.shards.layers import Layer
from retrieval_svc.shards.payloads import ChunkCodec
from retrieval_svc.shards.removals import Removals
from retrieval_svc.shards.segment import Segment, SegmentEntry
from retrieval_svc.values import (
    Changes,
    CollectionSpec,
    FetchedRows,
    IndexKind,
    MatchedRows,
    Sequences,
    ShardQuery,
    ShardStatus,
    Visibility,
)

_log = logging.getLogger(__name__)


class ShardIndex:
    """The rows of one shard. Not thread-safe: every method runs on the index thread, one at a time."""

    def __init__(self, folder: Path, spec: CollectionSpec, shard: int, codec: ChunkCodec) -> None:
        self._folder = folder
        self._spec = spec
        self._shard = shard
        self._codec = codec
        self._segments: list[tuple[SegmentEntry, Layer]] = []
        self._frozen: list[tuple[FrozenHead, Layer]] = []
        self._start_head(Head(spec, codec, after=0))
        self._position = 0
        self._checkpointed = 0
        self._removals = Removals()
        self._known = KnownFields()

    @classmethod
    def open(cls, folder: Path, *, spec: CollectionSpec, shard: int, codec: ChunkCodec, threads: int = 1) -> Self:
        """The newest valid checkpoint in `folder`, or an empty shard at position 0 where there is none.

        A checkpoint with a fault is skipped with a warning for the one before it. `threads` is OpenMP's number for searches of
        the calling thread.
        """
        use_threads(threads)
        index = cls(folder, spec, shard, codec)
        loaded = load(folder)
        if loaded is None:
            return index
        manifest, segments = loaded
        if (manifest.dimension, manifest.metric) == (spec.dimension, spec.metric):
            index.adopt(manifest, segments)
        else:
            _log.warning("the checkpoint in %s is of another dimension or metric; the shard starts empty", folder)
        return index

    @property
    def position(self) -> int:
        """Sequence number of the last change that searches see."""
        return self._position

    @property
    def checkpointed(self) -> int:
        """Sequence number of the last change that its files have; 0: none."""
        return self._checkpointed

    @property
    def row_count(self) -> int:
        """Rows that searches can find."""
        return sum([layer.row_count for layer in self._layers()])

    @property
    def head_row_count(self) -> int:
        """Rows in the head, gone ones among them; at about 8,000 it is time to freeze it."""
        return len(self._head)

    def apply(self, changes: Changes) -> None:
        """Brings the shard to `changes.through`. What it has already is left out; a gap before `after` raises ValueError."""
        if changes.after > self._position:
            message = f"changes after {changes.after} do not follow position {self._position}"
            raise ValueError(message)
        if changes.through <= self._position:
            return
        stored = changes.stored
        if stored.chunks:
            sequences = stored.sequences
            first = int(np.searchsorted(sequences, self._position, side="right"))
            self._head.append(sequences[first:], stored.vectors[first:], stored.chunks[first:])
        if len(changes.removed):
            later = changes.removed_at > self._position
            self._note_fields(changes.removed[later])
            self._remove(changes.removed[later])
            self._removals.add(changes.removed[later], changes.removed_at[later])
        self._position = changes.through

    def search(self, queries: Sequence[ShardQuery]) -> list[Found]:
        """The nearest rows to each query's vector: best first, ties by sequence number, at most `limit`, never a gone one."""
        return search_layers(self._nonempty(), self._spec, self._known, queries)

    def allowed(self, query: ShardQuery) -> MatchedRows | None:
        """The numbers of the rows that a query may find; None: all that there are."""
        unrestricted = query.filter is None and not query.document_id
        if unrestricted and all(layer.all_may_be_seen(query.visibility) for layer in self._nonempty()):
            return None
        return self.match(query.filter, query.visibility, query.document_id)

    def match(self, filter_: Filter | None, visibility: Visibility, document_id: str = "") -> MatchedRows:
        """The numbers of all rows that match and may be seen, ascending; with a `document_id` of those of that document."""
        parts, unmet = [np.empty(0, np.int64)], []
        for layer in self._nonempty():
            sequences, unmet_here = layer.matching_sequences(filter_, visibility, document_id)
            parts.append(sequences)
            unmet.append(unmet_here)
        return MatchedRows(sequences=np.concatenate(parts), unmet=self._known.unmet(filter_, unmet), row_count=self.row_count)

    def fetch(self, sequences: Sequences, *, with_vectors: bool = False) -> FetchedRows:
        """Rows by number, in the order asked for; those that are gone are left out."""
        chunks = np.empty(len(sequences), object)
        vectors = np.empty((len(sequences), self._spec.dimension), np.float32) if with_vectors else None
        there = np.zeros(len(sequences), np.bool_)
        for layer in self._nonempty():
            rows, here = layer.find_present(sequences)
            if len(rows):
                there |= here
                chunks[here] = layer.source.payloads(rows)
                if vectors is not None:
                    vectors[here] = layer.source.vectors_as_given(rows)
        kept = None if vectors is None else vectors[there]
        return FetchedRows(sequences=sequences[there], chunks=tuple(chunks[there].tolist()), vectors=kept)

    def status(self) -> ShardStatus:
        """The state of the shard. `record_position` is its own; the node knows the record's."""
        largest = max((entry for entry, _ in self._segments), key=lambda entry: entry.row_count, default=None)
        return ShardStatus(
            shard=self._shard,
            position=self._position,
            record_position=self._position,
            row_count=self.row_count,
            deleted_row_count=sum(layer.gone_count for layer in self._layers()),
            head_row_count=len(self._head) + sum(len(layer.source) for _, layer in self._frozen),
            segment_count=len(self._segments),
            index_kind=IndexKind.FLAT if largest is None else largest.kind,
            size_bytes=sum(layer.source.size_bytes for layer in self._layers()),
        )

    def freeze_head(self) -> FrozenHead | None:
        """Starts a new head and gives the old one to write as a segment; None where it has no rows."""
        if not len(self._head):
            return None
        ready = frozen(self._head, self._position, self._head_layer.gone)
        self._frozen.append((ready, self._head_layer))
        self._start_head(Head(self._spec, self._codec, after=self._position))
        return ready

    def next_manifest(
        self, *, added: Sequence[SegmentEntry] = (), replaced: Sequence[str] = (), attachments: Sequence[FileEntry] = ()
    ) -> Manifest:
        """What a checkpoint now would say, at the position up to which all rows are in segments.

        `added` are segments that were written of frozen heads, or that a compaction made of those in `replaced`.
        """
        for entry, layer in self._segments:
            if entry.name in replaced:
                self._known.note(layer.source.keys())
        names = {entry.name for entry in added}
        waiting = [ready.head for ready, _ in self._frozen if ready.name not in names]
        unsealed = [head for head in (*waiting, self._head) if len(head)]
        position = unsealed[0].after if unsealed else self._position
        gone = np.concatenate([np.empty(0, np.int64), *(layer.gone_sequences() for layer in self._layers())])
        return Manifest(
            shard=self._shard,
            position=position,
            dimension=self._spec.dimension,
            metric=self._spec.metric,
            segments=self._segments_with(added, replaced),
            tombstones=np.setdiff1d(gone[gone <= position], self._removals.after(position)),
            fields=tuple(self._known.keys),
            attachments=tuple(attachments),
        )

    def adopt(self, manifest: Manifest, segments: Sequence[Segment] | None = None) -> None:
        """Takes over a checkpoint's segments and tombstones; own later rows and removals stay.

        A shard that is behind the checkpoint is at its position afterwards. `segments` are the checkpoint's, opened before;
        those that the shard has already are kept with what it knows of them.
        """
        if segments is None:
            segments = open_segments(self._folder, manifest)
        own = {entry.name: layer for entry, layer in self._segments}
        self._segments = [(part.entry, own.get(part.entry.name) or Layer(part, self._codec)) for part in segments]
        self._frozen = [(ready, layer) for ready, layer in self._frozen if ready.position > manifest.position]
        rest = self._head.after_position(manifest.position)
        if rest is not self._head:
            self._start_head(rest)
        self._position = max(self._position, manifest.position)
        self._checkpointed = max(self._checkpointed, manifest.position)
        self._removals.forget(manifest.position)
        self._known.note(manifest.fields)
        self._remove(np.union1d(manifest.tombstones, self._removals.after(manifest.position)))

    def fields(self) -> list[Key]:
        """The metadata's fields that rows have or had, with the kinds of their values."""
        return KnownFields(chain(self._known.keys, *(layer.source.keys() for layer in self._layers()))).keys

    def remember(self, fields: Iterable[Key]) -> None:
        """Takes over the fields that another index of the same shard had."""
        self._known.note(fields)

    def plan_compaction(self, *, force: bool = False) -> CompactionPlan | None:
        """Which segments to merge now; None: none. `force`: all into one, gone rows dropped."""
        sizes = [(entry, layer.gone_count) for entry, layer in self._segments]
        gone = np.concatenate([np.empty(0, np.int64), *(layer.gone_sequences() for _, layer in self._segments)])
        return plan_for(self._folder, self._spec, sizes, gone, force=force)

    def _segments_with(self, added: Sequence[SegmentEntry], replaced: Sequence[str]) -> tuple[SegmentEntry, ...]:
        """In the order of their rows: what replaces segments stands where those stood, what is new at the end."""
        entries = [entry for entry, _ in self._segments]
        new = [entry for entry in added if entry.row_count]
        at = next((at for at, entry in enumerate(entries) if entry.name in replaced), len(entries))
        before, after = entries[:at], [entry for entry in entries[at:] if entry.name not in replaced]
        return (*before, *new, *after)

    def _note_fields(self, removed: Sequences) -> None:
        """Notes the fields of those rows whose head is written without them. A segment has the fields of all its rows."""
        for layer in (*[layer for _, layer in self._frozen], self._head_layer):
            self._known.note(layer.source.keys(layer.find(removed)[0]))

    def _remove(self, sequences: Sequences) -> None:
        if len(sequences):
            for layer in self._layers():
                layer.remove(sequences)

    def _start_head(self, head: Head) -> None:
        self._head = head
        self._head_layer = Layer(head, self._codec)

    def _layers(self) -> list[Layer]:
        """In the order of their rows."""
        return [*[layer for _, layer in self._segments], *[layer for _, layer in self._frozen], self._head_layer]

    def _nonempty(self) -> list[Layer]:
        return [layer for layer in self._layers() if len(layer.source)]
