"""The replicas of one slot as if they were one node, asked in batches."""

import asyncio
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from opentelemetry.trace import Span

from retrieval_svc.cluster.batches import Batches, BatchLimits
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.race import Ask, Pace, Race
from retrieval_svc.cluster.replicas import Connect, Replicas
from retrieval_svc.cluster.statistics import Statistics
from retrieval_svc.cluster.tracing import end_when_answered
from retrieval_svc.filters import Filter
from retrieval_svc.search.gathering import FetchedRow
from retrieval_svc.turns import Turns
from retrieval_svc.values import FetchedRows, MatchedRows, ShardAnswer, ShardQuery, Visibility

T = TypeVar("T")
_SearchKey = tuple[int, tuple[tuple[int, int], ...]]
"""Collection, and for each shard the position that it must have reached."""
_FetchKey = tuple[int, int, bool]
"""Collection, shard, and whether vectors are wanted."""
FETCH_ROWS_MAX: Final = 1000
"""Rows of one read; a call takes several callers' up to that."""


class RemoteSlot:
    """Another slot, or the other replicas of this node's own."""

    def __init__(self, connect: Connect, *, turns: Turns, limits: ClusterLimits, statistics: Statistics) -> None:
        self._limits = limits
        self._statistics = statistics
        self._replicas = Replicas(connect, limits=limits, statistics=statistics)
        self._pace = Pace(limits)
        self._searches = Batches[_SearchKey, ShardQuery, list[ShardAnswer]](
            self._search, _share, group=_search_group, turns=turns, limits=_search_limits(limits)
        )
        self._fetches = Batches[_FetchKey, int, dict[int, FetchedRow]](
            self._fetch, _whole, group=_fetch_group, turns=turns, limits=_fetch_limits(limits)
        )
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Number of replicas that are known."""
        return len(self._replicas)

    def search(
        self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], *, timeout_s: float, span: Span
    ) -> asyncio.Future[list[ShardAnswer]]:
        """The slot's answers to come: Overloaded where too many wait, and the errors of `Race`."""
        rows = len(shards) * sum(query.limit for query in queries)
        key = (uid, tuple(shards.items()))
        answer = self._searches.ask(key, queries, rows=rows, timeout_s=timeout_s, span=span)
        end_when_answered(span, answer)
        return answer

    def fetch(
        self, uid: int, shard: int, sequences: Sequence[int], *, with_vectors: bool, timeout_s: float, span: Span
    ) -> asyncio.Future[dict[int, FetchedRow]]:
        """Rows to come, by their numbers: those asked for that are still there, and maybe others'."""
        key = (uid, shard, with_vectors)
        answer = self._fetches.ask(key, sequences, rows=len(sequences), timeout_s=timeout_s, span=span)
        end_when_answered(span, answer)
        return answer

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility) -> MatchedRows:
        """All rows of a shard that match."""
        return await self._race(lambda node: node.match(uid, shard, at_least, filter_, visibility), waits=at_least > 0)

    def update(self, addresses: Collection[str]) -> None:
        """Takes on and lets go of replicas; those that go finish what they are asked."""
        for node in self._replicas.update(addresses):
            task = asyncio.get_running_loop().create_task(node.close(self._limits.call_timeout_s))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Ends all calls and connections."""
        await self._searches.close()
        await self._fetches.close()
        nodes = self._replicas.update(())
        await asyncio.gather(*(node.close() for node in nodes), *self._closing)

    async def _search(self, key: _SearchKey, queries: Sequence[ShardQuery]) -> list[ShardAnswer]:
        uid, shards = key[0], dict(key[1])
        self._statistics.batch_sent(len(queries))
        return await self._race(lambda node: node.search(uid, shards, queries), waits=any(shards.values()))

    async def _fetch(self, key: _FetchKey, sequences: Sequence[int]) -> dict[int, FetchedRow]:
        uid, shard, with_vectors = key
        wanted = np.unique(np.asarray(sequences, dtype=np.int64))
        # A row's number is that of the change which stored it: a replica that has not come so far cannot have the row.
        at_least = int(wanted[-1])
        rows = await self._race(lambda node: node.fetch(uid, shard, at_least, wanted, with_vectors=with_vectors), waits=True)
        return rows_by_number(rows)

    async def _race(self, ask: Ask[T], *, waits: bool) -> T:
        return await Race(self._replicas, self._pace, self._statistics, ask, waits=waits).run()


def rows_by_number(rows: FetchedRows) -> dict[int, FetchedRow]:
    """The rows that were read, by their sequence numbers."""
    vectors = [None] * len(rows.chunks) if rows.vectors is None else rows.vectors
    columns = zip(rows.sequences.tolist(), rows.chunks, vectors, strict=True)
    return {sequence: FetchedRow(chunk=chunk, vector=vector) for sequence, chunk, vector in columns}


def _share(answers: list[ShardAnswer], begin: int, end: int) -> list[ShardAnswer]:
    return [ShardAnswer(shard=answer.shard, found=answer.found[begin:end], row_count=answer.row_count) for answer in answers]


def _whole(rows: dict[int, FetchedRow], begin: int, end: int) -> dict[int, FetchedRow]:  # noqa: ARG001  # Found by number.
    return rows


def _search_group(key: _SearchKey) -> Hashable:
    """All slots of a collection, but for those who wait for a position: that may take long, and nobody else should."""
    uid, shards = key
    return "search", uid, max(position for _, position in shards)


def _fetch_group(key: _FetchKey) -> Hashable:
    uid, _, with_vectors = key
    return "fetch", uid, with_vectors


def _search_limits(limits: ClusterLimits) -> BatchLimits:
    return BatchLimits(
        items_max=limits.batch_queries_max,
        rows_max=limits.batch_rows_max,
        waiting_max=limits.waiting_max,
    )


def _fetch_limits(limits: ClusterLimits) -> BatchLimits:
    return BatchLimits(
        items_max=FETCH_ROWS_MAX,
        rows_max=FETCH_ROWS_MAX,
        waiting_max=limits.waiting_max,
    )
