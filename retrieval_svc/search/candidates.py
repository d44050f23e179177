"""Rows on their way to becoming hits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.search.gathering import GatheredRows
from retrieval_svc.values import Sequences

Scores = NDArray[np.float64]
Places = NDArray[np.intp]
"""Places of rows in a list of candidates."""


_SHARD_SHIFT: Final = 48
"""Shards are below 2^10, and 2^48 changes of one shard are beyond reach."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Rows in the order of a ranking, as columns of equal length.

    `scores` are what they are ranked by; `dense_scores` and `lexical_scores` are each side's own, NaN where that side has not
    found the row. `chunks` are the encoded chunks (bytes), None where they have not been read.
    """

    scores: Scores
    shards: NDArray[np.int32]
    sequences: Sequences
    dense_scores: Scores
    lexical_scores: Scores
    chunks: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, places: Places | slice) -> "Candidates":
        """The rows at those places, in that order."""
        return Candidates(
            scores=self.scores[places],
            shards=self.shards[places],
            sequences=self.sequences[places],
            dense_scores=self.dense_scores[places],
            lexical_scores=self.lexical_scores[places],
            chunks=self.chunks[places],
        )

    def scored(self, scores: Scores) -> "Candidates":
        """The same rows with other scores, best first; equals stay in their order."""
        return replace(self, scores=scores).take(np.argsort(-scores, kind="stable"))

    def with_chunks(self, chunks: list[bytes | None]) -> "Candidates":
        """The same rows with their chunks, without those that have none: they are gone."""
        column = chunk_column(chunks)
        return replace(self, chunks=column).take(np.flatnonzero(column != np.array(None)))

    def from_score(self, minimum: float) -> "Candidates":
        """Those with that score or a higher one, compared in the precision that callers see."""
        return self.take(np.flatnonzero(self.scores.astype(np.float32) >= np.float32(minimum)))

    def without(self, others: "Candidates") -> "Candidates":
        """The rows that are not among others."""
        return self.take(np.flatnonzero(~np.isin(self.keys, others.keys)))

    @property
    def keys(self) -> NDArray[np.int64]:
        """Shard and sequence number as one number."""
        return (self.shards.astype(np.int64) << _SHARD_SHIFT) | self.sequences

    @property
    def have_chunks(self) -> bool:
        """Whether the chunk of every row has been read."""
        return all(chunk is not None for chunk in self.chunks.tolist())


def joined(parts: Sequence[Candidates]) -> Candidates:
    """The rows of all parts, of which there is one at least, one after another."""
    columns = (np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Candidates))
    return Candidates(**dict(zip((each.name for each in fields(Candidates)), columns, strict=True)))


def dense_candidates(rows: GatheredRows) -> Candidates:
    """What was found by vector."""
    scores = rows.scores.astype(np.float64)
    return _candidates(rows, scores, dense_scores=scores, lexical_scores=unknown(len(scores)))


def lexical_candidates(rows: GatheredRows) -> Candidates:
    """What was found by words."""
    scores = rows.scores.astype(np.float64)
    return _candidates(rows, scores, dense_scores=unknown(len(scores)), lexical_scores=scores)


def unknown(count: int) -> Scores:
    """Scores of rows that a side has not found."""
    return np.full(count, np.nan)


def chunk_column(chunks: list[bytes | None]) -> NDArray[np.object_]:
    """Chunks as a column; NumPy would make a matrix of their bytes otherwise."""
    column = np.empty(len(chunks), dtype=object)
    column[:] = cast("Any", chunks)
    return column


def _candidates(rows: GatheredRows, scores: Scores, *, dense_scores: Scores, lexical_scores: Scores) -> Candidates:
    return Candidates(
        scores=scores,
        shards=rows.shards,
        sequences=rows.sequences,
        dense_scores=dense_scores,
        lexical_scores=lexical_scores,
        chunks=chunk_column(list(rows.chunks) if rows.chunks else [None] * len(scores)),
    )
