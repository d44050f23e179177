"""Writes segments block by block, so that memory does not grow with the rows: a head's, a bulk build's, a compaction's."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
import orjson

from retrieval_svc.shards.columns import ColumnBuilder, Columns
from retrieval_svc.shards.disk import LOCAL_DISK, Disk, FileEntry, file_entry, full_disk_told
from retrieval_svc.shards.documents import Documents, Hashes, hashes_of
from retrieval_svc.shards.head import FrozenHead, segment_name
from retrieval_svc.shards.index import FlatVectors, VectorWriter, build
from retrieval_svc.shards.kinds import kind_for
from retrieval_svc.shards.metrics import Lengths, prepared
from retrieval_svc.shards.payloads import BLOB, ENDS, PayloadWriter
from retrieval_svc.shards.segment import (
    COLUMNS,
    ENTRY,
    INDEX,
    LENGTHS,
    SEGMENTS,
    SEQUENCES,
    VECTORS,
    SegmentEntry,
    files_below,
    read_entry,
)
from retrieval_svc.values import CollectionSpec, IndexConfig, IndexKind, Matrix, Metric, Sequences

PARTIAL: Final = ".partial"
"""Ends the name of a folder whose segment is not whole."""

_FLAT: Final = IndexConfig(kind=IndexKind.FLAT)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowBlock:
    """Rows of a bulk build: ascending numbers, vectors as given, encoded chunks, and what searches are restricted by.

    All of equal length.
    """

    sequences: Sequences
    vectors: Matrix
    payloads: Sequence[bytes]
    document_ids: Sequence[str]
    metadata_json: Sequence[str]
    allowed_principals: Sequence[tuple[str, ...]]


class SegmentWriter:
    """One segment on its way. A context: left by an exception, it leaves nothing but a partial folder for the next sweep."""

    def __init__(self, folder: Path, name: str, dimension: int, metric: Metric, *, disk: Disk = LOCAL_DISK) -> None:
        self._root = folder
        self._name = name
        self._metric = metric
        self._disk = disk
        self._folder = folder / SEGMENTS / (name + PARTIAL)
        self._dimension = dimension
        self._files = ExitStack()
        self._row_count = 0
        self._documents: list[Hashes] | None = []

    def __enter__(self) -> Self:
        self._disk.remove(self._folder)
        self._folder.mkdir(parents=True)
        self._vectors = VectorWriter(self._opened(VECTORS), self._dimension, self._metric)
        self._sequences = self._opened(SEQUENCES)
        self._payloads = PayloadWriter(self._opened(BLOB), self._opened(ENDS))
        if self._metric is Metric.COSINE:
            self._lengths = self._opened(LENGTHS)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(
        self,
        sequences: Sequences,
        vectors: Matrix,
        lengths: Lengths | None,
        payloads: Sequence[bytes],
        documents: Hashes | None,
    ) -> None:
        """Appends rows; their vectors are prepared. `documents`, of which memory holds 8 bytes a row: None where not known."""
        self._sequences.write(np.ascontiguousarray(sequences, np.int64).data)
        self._vectors.add(vectors)
        if lengths is not None:
            self._lengths.write(np.ascontiguousarray(lengths, np.float32).data)
        self._payloads.add(payloads)
        if documents is None:
            self._documents = None
        elif self._documents is not None:
            self._documents.append(documents)
        self._row_count += len(sequences)

    def finish(self, columns: Columns, config: IndexConfig, *, base: Path | None = None) -> SegmentEntry:
        """Builds the index that suits the rows, and lets the segment appear. `base`: a graph over the first rows."""
        self._vectors.finish()
        self._files.close()
        kind = kind_for(config, self._row_count)
        if kind is not IndexKind.FLAT:
            build(kind, FlatVectors.open(self._folder / VECTORS), config, self._folder / INDEX, base=base)
        (self._folder / COLUMNS).mkdir()
        columns.save(self._folder / COLUMNS)
        if self._documents is not None:
            Documents.of(np.concatenate(self._documents)).save(self._folder)
        return self._appear(kind)

    def _opened(self, name: str) -> BinaryIO:
        return self._files.enter_context((self._folder / name).open("wb"))

    def _appear(self, kind: IndexKind) -> SegmentEntry:
        target = self._root / SEGMENTS / self._name
        entry = SegmentEntry(name=self._name, row_count=self._row_count, kind=kind, files=self._described(target))
        self._disk.sync(*files_below(self._folder))
        self._disk.write(self._folder / ENTRY, orjson.dumps(entry.to_json()))
        self._disk.sync(self._folder / COLUMNS, self._folder)
        self._disk.rename(self._folder, target)
        self._disk.sync(target.parent)
        return entry

    def _described(self, target: Path) -> tuple[FileEntry, ...]:
        entries = [file_entry(self._folder, path) for path in files_below(self._folder)]
        prefix = target.relative_to(self._root).as_posix()
        return tuple(replace(entry, path=f"{prefix}/{entry.path}") for entry in entries)


def write_segment(frozen: FrozenHead, folder: Path, *, disk: Disk = LOCAL_DISK) -> SegmentEntry:
    """Writes a frozen head as a flat segment of the shard in `folder`; on any thread, while the head is searched.

    Flat, because that takes no time: compaction builds what is faster to search. One that was written before is left as it is.
    A head without rows to write gives an entry without rows. Raises FailedPrecondition when the disk is full.
    """
    head, rows = frozen.head, frozen.rows
    written = read_entry(folder, frozen.name)
    if written is not None or not len(rows):
        return written or nothing_written(frozen.name)
    columns = ColumnBuilder()
    for number, row in enumerate(rows.tolist()):
        columns.add(number, head.chunks[row].metadata_json, head.chunks[row].allowed_principals)
    lengths = None if head.lengths is None else head.lengths[rows]
    with full_disk_told(folder), SegmentWriter(folder, frozen.name, head.spec.dimension, head.spec.metric, disk=disk) as writer:
        documents = hashes_of(head.chunks[row].document_id for row in rows.tolist())
        writer.add(head.sequences[rows], head.vectors.view()[rows], lengths, head.payloads(rows), documents)
        return writer.finish(columns.build(), _FLAT)


def write_rows(
    folder: Path, blocks: Iterable[RowBlock], spec: CollectionSpec, *, name: str | None = None, disk: Disk = LOCAL_DISK
) -> SegmentEntry:
    """Writes rows of any number as one finished segment of the kind that suits them; for bulk builds, in any process.

    Blocks ascend in their sequence numbers and are held one at a time. Beside them memory holds what building the index takes
    (index.build), the metadata's columns and 8 bytes a row. Raises FailedPrecondition when the disk is full.
    """
    name = name or segment_name()
    columns = ColumnBuilder()
    count = 0
    with full_disk_told(folder), SegmentWriter(folder, name, spec.dimension, spec.metric, disk=disk) as writer:
        for block in blocks:
            vectors, lengths = prepared(block.vectors, spec.metric)
            writer.add(block.sequences, vectors, lengths, block.payloads, hashes_of(block.document_ids))
            for metadata_json, principals in zip(block.metadata_json, block.allowed_principals, strict=True):
                columns.add(count, metadata_json, principals)
                count += 1
        return writer.finish(columns.build(), spec.index) if count else nothing_written(name)


def nothing_written(name: str) -> SegmentEntry:
    """The entry of a segment that would have no rows."""
    return SegmentEntry(name=name, row_count=0, kind=IndexKind.FLAT, files=())
