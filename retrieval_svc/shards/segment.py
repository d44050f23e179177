"""A segment: rows that never change, in a folder of files that are mapped and shared by the processes of a host.

    vectors.faiss      the vectors as they are compared (under cosine of length 1), in a flat index
    lengths.f32        under cosine: the lengths of the vectors as they were given
    index.faiss        the graph or inverted file, unless the segment is flat
    sequences.i64      the rows' sequence numbers, ascending
    payloads.bin, payload_ends.i64
    columns/           metadata and access lists
    documents.u64, document_rows.i32
                       which rows are of a document; not there in segments from before, nor in what is merged of such
    segment.json       what is here, with checksums

A segment is written to a folder of another name and appears by being renamed, so one that is there is whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import orjson

from retrieval_svc.filters import Filter
from retrieval_svc.shards.columns import Columns, Key, Kind
from retrieval_svc.shards.disk import FileEntry
from retrieval_svc.shards.documents import Documents, hashes_of
from retrieval_svc.shards.exact import Best, Rows
from retrieval_svc.shards.filtering import Mask, matching
from retrieval_svc.shards.index import AnnIndex, Effort, FlatVectors
from retrieval_svc.shards.metrics import Lengths, as_given
from retrieval_svc.shards.payloads import ChunkCodec, Payloads, mapped
from retrieval_svc.shards.selection import Selection
from retrieval_svc.values import IndexKind, Matrix, Sequences, UnmetCondition, Visibility

SEGMENTS: Final = "segments"
VECTORS: Final = "vectors.faiss"
LENGTHS: Final = "lengths.f32"
INDEX: Final = "index.faiss"
SEQUENCES: Final = "sequences.i64"
COLUMNS: Final = "columns"
ENTRY: Final = "segment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """What a manifest says of a segment. One without rows has no folder, and is left out of manifests."""

    name: str
    row_count: int
    kind: IndexKind
    files: tuple[FileEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        files = [asdict(file) for file in self.files]
        return {"name": self.name, "row_count": self.row_count, "kind": self.kind.value, "files": files}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Back from JSON. Raises KeyError, TypeError or ValueError for what is none."""
        files = tuple(FileEntry(**file) for file in document["files"])
        return cls(name=document["name"], row_count=document["row_count"], kind=IndexKind(document["kind"]), files=files)


class Segment:
    """A segment, mapped. Everything may be called by several threads at the same time."""

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        self.entry = entry
        self.vectors = FlatVectors.open(folder / VECTORS)
        self.sequences: Sequences = mapped(folder / SEQUENCES, np.int64)
        self.lengths: Lengths | None = mapped(folder / LENGTHS, np.float32) if (folder / LENGTHS).exists() else None
        self.columns = Columns.open(folder / COLUMNS)
        self.documents = Documents.open(folder)
        self._payloads = Payloads(folder)
        self._index = None
        if entry.kind is not IndexKind.FLAT:
            self._index = AnnIndex.open(folder / INDEX, self.vectors, entry.kind)
        self._restricted = self.columns.column(Kind.ACCESS, "") is not None

    @classmethod
    def open(cls, folder: Path, entry: SegmentEntry) -> Self:
        """A segment of the shard in `folder`."""
        return cls(folder / SEGMENTS / entry.name, entry)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return self.entry.size_bytes

    def search(self, queries: Matrix, k: int, effort: Effort, selection: Selection | None) -> Best:
        """The best k of each prepared query, among the selected rows."""
        if self._index is not None:
            return self._index.search(queries, k, effort, selection)
        return self.vectors.search(queries, k, None if selection is None else selection.rows)

    def search_rows(self, queries: Matrix, k: int, rows: Rows) -> Best:
        """The best k of each prepared query among some rows."""
        return self.vectors.search(queries, k, rows)

    def rows_of(self, document_id: str, codec: ChunkCodec) -> Rows:
        """The rows of a document, ascending. Where the files do not tell it, all chunks are read for the first."""
        if self.documents is None:
            self.documents = Documents.of(hashes_of(map(codec.document_id, self._payloads.all())))
        return self.documents.rows_of(document_id)

    def matching(self, filter_: Filter | None, visibility: Visibility) -> tuple[Mask | None, tuple[UnmetCondition, ...]]:
        """The rows that match and may be seen, None for all of them."""
        if filter_ is None and not (self._restricted and visibility.principals is not None):
            return None, ()
        return matching(self.columns, len(self), filter_, visibility)

    def keys(self, rows: Rows | None = None) -> Iterator[Key]:  # noqa: ARG002  # No column is looked into for it.
        """The fields of all rows, with the kinds of their values."""
        return self.columns.keys()

    def payloads(self, rows: Rows) -> list[bytes]:
        """The encoded chunks of rows."""
        return self._payloads.at(rows)

    def vectors_as_given(self, rows: Rows) -> Matrix:
        """The vectors of rows."""
        return as_given(self.vectors.view()[rows], None if self.lengths is None else self.lengths[rows])


def read_entry(folder: Path, name: str) -> SegmentEntry | None:
    """The entry of a segment of the shard in `folder`, None where there is no such segment."""
    try:
        return SegmentEntry.from_json(orjson.loads((folder / SEGMENTS / name / ENTRY).read_bytes()))
    except FileNotFoundError:
        return None


def files_below(folder: Path) -> Sequence[Path]:
    """All files in a folder and its folders, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
