"""Where searches get their candidates from: all shards of a collection, wherever they are."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import Filter
from retrieval_svc.light import light
from retrieval_svc.values import Collection, Sequences, ShardQuery, Vector, Visibility


@light
class GatheredRows:
    """Rows of all shards, best first, ties by shard and sequence number. Columns of equal length.

    `chunks` holds the rows' encoded chunks where the query asked for them, and is empty otherwise.
    """

    scores: NDArray[np.float32]
    shards: NDArray[np.int32]
    sequences: Sequences
    chunks: tuple[bytes, ...] = ()


NO_ROWS: Final = GatheredRows(scores=np.empty(0, np.float32), shards=np.empty(0, np.int32), sequences=np.empty(0, np.int64))


@light
class Gathered:
    """What one query found: by vector and by words, each side at most the query's limit. `missing_shards` did not answer."""

    dense: GatheredRows | None = None
    lexical: GatheredRows | None = None
    missing_shards: tuple[int, ...] = ()


@light
class FetchedRow:
    """A row that was read: its encoded chunk, and its vector as it was given where that was asked for."""

    chunk: bytes
    vector: Vector | None = None


def chunks_of(fetched: Sequence[FetchedRow | None]) -> list[bytes | None]:
    """The chunks of rows that were read; None for those that are gone."""
    return [None if row is None else row.chunk for row in fetched]


class Gatherer(Protocol):
    """All shards of a collection as one."""

    async def gather(
        self, collection: Collection, queries: Sequence[ShardQuery], *, at_least: Mapping[int, int], allow_partial: bool
    ) -> list[Gathered]:
        """What each query found, once every shard has reached the position that `at_least` has for it.

        Raises InvalidArgument for a filter that no row of any shard could meet (a field that does not exist, or of another
        type), Unavailable when a shard cannot be reached unless `allow_partial`, DeadlineExceeded.
        """
        ...

    async def fetch(
        self, collection: Collection, shards: NDArray[np.int32], sequences: Sequences, *, with_vectors: bool
    ) -> list[FetchedRow | None]:
        """The rows of those numbers, in that order; None for one that is gone meanwhile."""
        ...

    async def match(
        self, collection: Collection, filter_: Filter, visibility: Visibility, *, at_least: Mapping[int, int]
    ) -> dict[int, Sequences]:
        """For each shard the numbers of all rows that match."""
        ...
