"""A layer of a shard: a segment or a head, and which of its rows are gone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from retrieval_svc.filters import Filter
from retrieval_svc.shards.columns import Key
from retrieval_svc.shards.exact import Best, Rows
from retrieval_svc.shards.filtering import Mask
from retrieval_svc.shards.index import Effort
from retrieval_svc.shards.payloads import ChunkCodec
from retrieval_svc.shards.selection import RecentlyUsed, Selection
from retrieval_svc.values import Matrix, Sequences, UnmetCondition, Visibility

CACHE_BYTES_MAX: Final = 16 * 2**20
"""What the filters of one layer may keep in memory; their masks as much again."""


class RowSource(Protocol):
    """Rows in the order of their sequence numbers. They are only ever added to."""

    @property
    def sequences(self) -> Sequences:
        """Their numbers, ascending."""
        ...

    @property
    def size_bytes(self) -> int:
        """What they take on disk or in memory."""
        ...

    def __len__(self) -> int: ...

    def search(self, queries: Matrix, k: int, effort: Effort, selection: Selection | None) -> Best:
        """The best k of each prepared query, among the selected rows; -1 nowhere."""
        ...

    def search_rows(self, queries: Matrix, k: int, rows: Rows) -> Best:
        """The best k of each prepared query among some rows, each of which is compared."""
        ...

    def rows_of(self, document_id: str, codec: ChunkCodec) -> Rows:
        """The rows of a document, ascending. `codec` reads chunks where that is the only way to tell."""
        ...

    def matching(self, filter_: Filter | None, visibility: Visibility) -> tuple[Mask | None, tuple[UnmetCondition, ...]]:
        """The rows that match and may be seen, None for all of them; and the conditions that none could meet."""
        ...

    def keys(self, rows: Rows | None = None) -> Iterator[Key]:
        """The fields of some rows (None: of all) with the kinds of their values; of others too, where telling costs more."""
        ...

    def payloads(self, rows: Rows) -> list[bytes]:
        """The encoded chunks of rows."""
        ...

    def vectors_as_given(self, rows: Rows) -> Matrix:
        """The vectors of rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matched:
    """What a filter says of the first `row_count` rows."""

    row_count: int
    mask: Mask | None
    unmet: tuple[UnmetCondition, ...]

    @property
    def size_bytes(self) -> int:
        return 200 if self.mask is None else 200 + len(self.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selected:
    """The selection that was current at a version of the layer."""

    version: tuple[int, int]
    selection: Selection

    @property
    def size_bytes(self) -> int:
        return self.selection.size_bytes


class Layer:
    """Rows with tombstones. Used from the index thread alone."""

    def __init__(self, source: RowSource, codec: ChunkCodec) -> None:
        self.source = source
        self._codec = codec
        self.gone_count = 0
        self._gone = np.zeros(0, np.bool_)
        self._matched: RecentlyUsed[_Matched] = RecentlyUsed(CACHE_BYTES_MAX)
        self._selected: RecentlyUsed[_Selected] = RecentlyUsed(CACHE_BYTES_MAX)

    @property
    def row_count(self) -> int:
        """Rows that are not gone."""
        return len(self.source) - self.gone_count

    @property
    def gone(self) -> Mask | None:
        """Which rows are gone; None: none."""
        return self._gone_of_all() if self.gone_count else None

    def gone_sequences(self) -> Sequences:
        """The numbers of the rows that are gone."""
        return self.source.sequences[self._gone_of_all()] if self.gone_count else np.empty(0, np.int64)

    def find(self, sequences: Sequences) -> tuple[Rows, Mask]:
        """Which of these numbers are rows here, gone or not, as a mask; and those rows."""
        own = self.source.sequences
        if not len(own):
            return np.empty(0, np.int64), np.zeros(len(sequences), np.bool_)
        rows = np.searchsorted(own, sequences)
        rows[rows == len(own)] = 0
        here = own[rows] == sequences
        return rows[here], here

    def find_present(self, sequences: Sequences) -> tuple[Rows, Mask]:
        """The same but for rows that are gone."""
        rows, here = self.find(sequences)
        if self.gone_count:
            present = ~self._gone_of_all()[rows]
            here[here] = present
            rows = rows[present]
        return rows, here

    def remove(self, sequences: Sequences) -> None:
        """Marks rows as gone. Numbers that are not here are ignored, and so are those that are gone already."""
        own = self.source.sequences
        if not len(own) or not len(sequences):
            return
        rows, _ = self.find(sequences)
        if len(rows):
            self._gone_of_all()[rows] = True
            self.gone_count = int(np.count_nonzero(self._gone))

    def selection(self, filter_: Filter | None, visibility: Visibility) -> tuple[Selection | None, tuple[UnmetCondition, ...]]:
        """The rows that match, may be seen and are not gone, None for all; and the conditions that none could meet."""
        if filter_ is None and visibility.principals is None:
            return self._with_tombstones((None, None), None), ()
        matched = self._matching(filter_, visibility)
        key = (None, None) if matched.mask is None else (filter_, visibility)
        return self._with_tombstones(key, matched.mask), matched.unmet

    def rows_of(
        self, document_id: str, filter_: Filter | None, visibility: Visibility
    ) -> tuple[Rows, tuple[UnmetCondition, ...]]:
        """Of a document: the rows that match, may be seen and are not gone, ascending; and the conditions as above."""
        selection, unmet = self.selection(filter_, visibility)
        rows = self.source.rows_of(document_id, self._codec)
        return rows if selection is None else rows[selection.mask[rows]], unmet

    def matching_sequences(
        self, filter_: Filter | None, visibility: Visibility, document_id: str
    ) -> tuple[Sequences, tuple[UnmetCondition, ...]]:
        """The numbers of the rows that match, of all documents where the id is empty; and the conditions as above."""
        if document_id:
            rows, unmet = self.rows_of(document_id, filter_, visibility)
            return self.source.sequences[rows], unmet
        selection, unmet = self.selection(filter_, visibility)
        return self.source.sequences if selection is None else self.source.sequences[selection.rows], unmet

    def all_may_be_seen(self, visibility: Visibility) -> bool:
        """Whether every row may be seen."""
        return self._matching(None, visibility).mask is None

    def _matching(self, filter_: Filter | None, visibility: Visibility) -> _Matched:
        key = (filter_, visibility)
        matched = self._matched.get(key)
        if matched is None or matched.row_count != len(self.source):
            mask, unmet = self.source.matching(filter_, visibility)
            matched = _Matched(row_count=len(self.source), mask=mask, unmet=unmet)
            self._matched.put(key, matched)
        return matched

    def _with_tombstones(self, key: object, mask: Mask | None) -> Selection | None:
        if mask is None and not self.gone_count:
            return None
        version = (len(self.source), self.gone_count)
        selected = self._selected.get(key)
        if selected is None or selected.version != version:
            selected = _Selected(version=version, selection=Selection(self._remaining(mask)))
            self._selected.put(key, selected)
        return selected.selection

    def _remaining(self, mask: Mask | None) -> Mask:
        if not self.gone_count:
            assert mask is not None  # noqa: S101  # For the type: without a mask and tombstones there is no selection.
            return mask
        gone = self._gone_of_all()
        return ~gone if mask is None else mask & ~gone

    def _gone_of_all(self) -> Mask:
        """The tombstones of all rows, those that were added since among them."""
        missing = len(self.source) - len(self._gone)
        if missing:
            self._gone = np.concatenate([self._gone, np.zeros(missing, np.bool_)])
        return self._gone
