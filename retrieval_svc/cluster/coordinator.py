"""All shards of a collection as one, wherever they are.

    gather -> every slot at once -> answers, or why there are none -> one ranking a query

The own slot is asked directly (own_slot.py); the others in batches (remote_slot.py, batches.py), with hedges and retries
(race.py) over the replicas that are there (penstock/discovery.py, replicas.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import Span, Tracer, get_current_span

from penstock.deadline import within
from penstock.discovery import Discovery, Resolve, resolve_by_dns
from penstock.errors import PenstockError
from retrieval_svc.cluster.collecting import AWAITED_WRITE, EARLIER_WRITES, MISSING, collect, failure_of, time_left_s
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.merging import merge_answers
from retrieval_svc.cluster.own_slot import OwnSlot
from retrieval_svc.cluster.remote_slot import FETCH_ROWS_MAX, RemoteSlot
from retrieval_svc.cluster.replicas import Connect
from retrieval_svc.cluster.shard_node import ShardNode
from retrieval_svc.cluster.statistics import Event, NoStatistics, Statistics
from retrieval_svc.cluster.topology import Topology
from retrieval_svc.cluster.tracing import MISSING_SHARDS, fan_out_span, shard_call_span
from retrieval_svc.cluster.unmet_conditions import check_answers, check_matched
from retrieval_svc.filters import Filter
from retrieval_svc.search.gathering import FetchedRow, Gathered
from retrieval_svc.turns import Turns
from retrieval_svc.values import Collection, MatchedRows, Sequences, ShardAnswer, ShardQuery, Visibility

_NOBODY: Final[tuple[str, ...]] = ()


class Slot(Protocol):
    """The shards of one slot. Calls begin at once or when they are awaited, and end when they are cancelled."""

    def search(
        self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], *, timeout_s: float, span: Span
    ) -> Awaitable[list[ShardAnswer]]:
        """One answer a shard. `span` is of this call and ended by it."""
        ...

    def fetch(
        self, uid: int, shard: int, sequences: Sequence[int], *, with_vectors: bool, timeout_s: float, span: Span
    ) -> Awaitable[dict[int, FetchedRow]]:
        """The rows that are still there, by their numbers, and maybe others. `span` as above."""
        ...

    def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility) -> Awaitable[MatchedRows]:
        """All rows of a shard that match."""
        ...


class Coordinator:
    """The Gatherer over a cluster. `start` finds the replicas and `close` lets go of them; a node alone needs neither.

    `own_addresses` are this node's own ("ip:port"), which the name of its slot may resolve to.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        node: ShardNode,
        connect: Connect,
        tracer: Tracer,
        limits: ClusterLimits | None = None,
        statistics: Statistics | None = None,
        resolve: Resolve = resolve_by_dns,
        own_addresses: Iterable[str] = _NOBODY,
    ) -> None:
        self._topology = topology
        self._tracer = tracer
        self._limits = limits or ClusterLimits()
        self._statistics = statistics or NoStatistics()
        turns = Turns(open_max=self._limits.turns_open_max, turn_max_s=self._limits.turn_max_s)
        self._remote = {
            slot: RemoteSlot(connect, turns=turns, limits=self._limits, statistics=self._statistics)
            for slot in range(topology.slot_count)
        }
        self._own = OwnSlot(node, self._remote[topology.own_slot])
        self._slots: dict[int, Slot] = {**self._remote, topology.own_slot: self._own}
        self._discovery = Discovery(topology.addresses, self._update, kind="slot", resolve=resolve, own=own_addresses)
        self._discovering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Finds the replicas, and from then on keeps looking."""
        await self._discovery.refresh()
        self._discovering = asyncio.get_running_loop().create_task(self._discovery.run())

    async def close(self) -> None:
        """Ends all calls and connections."""
        if self._discovering is not None:
            self._discovering.cancel()
            await asyncio.gather(self._discovering, return_exceptions=True)
        await asyncio.gather(*(slot.close() for slot in self._remote.values()))

    async def gather(
        self, collection: Collection, queries: Sequence[ShardQuery], *, at_least: Mapping[int, int], allow_partial: bool
    ) -> list[Gathered]:
        """The port's gather. An answer without any shard is none, whatever `allow_partial` says."""
        if not queries:
            return []
        if self._topology.slot_count == 1 and not at_least and not (span := get_current_span()).is_recording():
            return await self._gather_here(collection, queries, span)
        uid, plan = collection.uid, self._plan(collection)
        began, timeout_s = time.monotonic(), time_left_s(self._limits.shard_timeout_s)
        pieces = _pieces(queries, collection.spec.shard_count, self._limits)
        with fan_out_span(self._tracer, slot_count=len(plan), query_count=len(queries)) as span:
            pending = {
                (slot, number): self._search(uid, slot, positions, piece, timeout_s=timeout_s, parent=span)
                for slot, positions in _demanded(plan, at_least).items()
                for number, piece in enumerate(pieces)
            }
            answers, failures = await collect(pending, timeout_s)
            lost = {slot: error for (slot, _), error in failures.items()}
            missing = tuple(sorted(shard for slot in lost for shard in plan[slot]))
            if missing and not (allow_partial and len(lost) < len(plan)):
                raise failure_of(collection.spec.id, plan, lost, awaited=AWAITED_WRITE if at_least else "")
            if missing:
                self._statistics.happened(Event.PARTIAL, len(queries))
                span.set_attribute(MISSING_SHARDS, missing)
        self._statistics.fanned_out(time.monotonic() - began)
        gathered: list[Gathered] = []
        for number, piece in enumerate(pieces):
            came = [answer for slot in plan if slot not in lost for answer in answers[slot, number]]
            gathered += _merge(piece, came, missing)
        return gathered

    async def _gather_here(self, collection: Collection, queries: Sequence[ShardQuery], span: Span) -> list[Gathered]:
        """The same where every shard is on this node, no position is waited for and nobody records how long what took.

        Then there is nothing to choose, to time apart from the call itself, or to leave out: a third of what a search costs
        beside the index would go into preparing for all that.
        """
        uid, began = collection.uid, time.monotonic()
        shards = dict.fromkeys(range(collection.spec.shard_count), 0)
        gathered: list[Gathered] = []
        for piece in _pieces(queries, len(shards), self._limits):
            try:
                answers = await self._own.search(uid, shards, piece, timeout_s=self._limits.shard_timeout_s, span=span)
            except MISSING as error:
                slot = self._topology.own_slot
                raise failure_of(collection.spec.id, {slot: tuple(shards)}, {slot: error}, awaited="") from error
            gathered += _merge(piece, answers, ())
        self._statistics.fanned_out(time.monotonic() - began)
        return gathered

    async def fetch(
        self, collection: Collection, shards: NDArray[np.int32], sequences: Sequences, *, with_vectors: bool
    ) -> list[FetchedRow | None]:
        """The port's fetch. Raises Unavailable when a shard cannot be reached."""
        uid, timeout_s = collection.uid, time_left_s(self._limits.shard_timeout_s)
        pending = {
            (shard, number): self._fetch(uid, shard, wanted, timeout_s, with_vectors=with_vectors)
            for shard in np.unique(shards).tolist()
            for number, wanted in enumerate(_parts(sequences[shards == shard].tolist(), FETCH_ROWS_MAX))
        }
        rows, failures = await collect(pending, timeout_s)
        self._refuse(collection, {shard: error for (shard, _), error in failures.items()}, awaited="")
        found: dict[int, dict[int, FetchedRow]] = {}
        for (shard, _), part in rows.items():
            found.setdefault(shard, {}).update(part)
        places = zip(shards.tolist(), sequences.tolist(), strict=True)
        return [found[shard].get(sequence) for shard, sequence in places]

    async def match(
        self, collection: Collection, filter_: Filter, visibility: Visibility, *, at_least: Mapping[int, int]
    ) -> dict[int, Sequences]:
        """The port's match. Raises InvalidArgument and Unavailable as `gather` does."""
        uid, timeout_s = collection.uid, time_left_s(self._limits.shard_timeout_s)
        loop = asyncio.get_running_loop()
        with within(timeout_s):
            pending = {
                shard: loop.create_task(
                    _of(self._slot(uid, shard).match(uid, shard, at_least.get(shard, 0), filter_, visibility))
                )
                for shard in range(collection.spec.shard_count)
            }
        try:
            matched, failures = await collect(pending, timeout_s)
        finally:
            await asyncio.gather(*pending.values(), return_exceptions=True)
        self._refuse(collection, failures, awaited=EARLIER_WRITES if at_least else "")
        check_matched(matched.values())
        return {shard: rows.sequences for shard, rows in matched.items()}

    def _plan(self, collection: Collection) -> dict[int, tuple[int, ...]]:
        return self._topology.shards_by_slot(collection.uid, collection.spec.shard_count)

    def _slot(self, uid: int, shard: int) -> Slot:
        return self._slots[self._topology.slot_of(uid, shard)]

    def _search(
        self,
        uid: int,
        slot: int,
        positions: Mapping[int, int],
        queries: Sequence[ShardQuery],
        *,
        timeout_s: float,
        parent: Span,
    ) -> Awaitable[list[ShardAnswer]]:
        span = shard_call_span(self._tracer, parent, slot=slot, shards=tuple(positions), query_count=len(queries))
        return self._slots[slot].search(uid, positions, queries, timeout_s=timeout_s, span=span)

    def _fetch(
        self, uid: int, shard: int, sequences: Sequence[int], timeout_s: float, *, with_vectors: bool
    ) -> Awaitable[dict[int, FetchedRow]]:
        slot = self._topology.slot_of(uid, shard)
        span = shard_call_span(self._tracer, get_current_span(), slot=slot, shards=(shard,), query_count=0)
        return self._slots[slot].fetch(uid, shard, sequences, with_vectors=with_vectors, timeout_s=timeout_s, span=span)

    def _refuse(self, collection: Collection, failures: Mapping[int, PenstockError], *, awaited: str) -> None:
        """Raises the error of shards that could not be read, where there are any."""
        if failures:
            by_slot: dict[int, list[int]] = {}
            for shard in failures:
                by_slot.setdefault(self._topology.slot_of(collection.uid, shard), []).append(shard)
            errors = {slot: failures[shards[0]] for slot, shards in by_slot.items()}
            raise failure_of(collection.spec.id, by_slot, errors, awaited=awaited)

    def _update(self, slot: int, addresses: frozenset[str]) -> None:
        self._remote[slot].update(addresses)


def _merge(queries: Sequence[ShardQuery], answers: list[ShardAnswer], missing: tuple[int, ...]) -> list[Gathered]:
    if not missing:  # A missing shard might have had the field.
        check_answers(answers)
    answers.sort(key=lambda answer: answer.shard)
    return merge_answers(queries, answers, missing)


def _demanded(plan: Mapping[int, Sequence[int]], at_least: Mapping[int, int]) -> dict[int, dict[int, int]]:
    return {slot: {shard: at_least.get(shard, 0) for shard in shards} for slot, shards in plan.items()}


def _pieces(queries: Sequence[ShardQuery], shard_count: int, limits: ClusterLimits) -> list[Sequence[ShardQuery]]:
    """Consecutive queries that fit into one call, however many a caller brings."""
    rows = [query.limit * shard_count for query in queries]
    if len(queries) <= limits.batch_queries_max and sum(rows) <= limits.batch_rows_max:
        return [queries]
    pieces: list[list[ShardQuery]] = [[]]
    rows_in_piece = 0
    for query, more in zip(queries, rows, strict=True):
        full = len(pieces[-1]) == limits.batch_queries_max or rows_in_piece + more > limits.batch_rows_max
        if pieces[-1] and full:
            pieces.append([])
            rows_in_piece = 0
        pieces[-1].append(query)
        rows_in_piece += more
    return list(pieces)


def _parts(sequences: list[int], size_max: int) -> Iterator[list[int]]:
    return (sequences[at : at + size_max] for at in range(0, len(sequences), size_max))


async def _of(answer: Awaitable[MatchedRows]) -> MatchedRows:
    return await answer
