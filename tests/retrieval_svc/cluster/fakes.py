"""Nodes of a cluster that do what each test needs, behind real gRPC servers where a test asks for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from penstock.discovery import Resolve, resolve_by_dns
from penstock.dispatcher import Dispatcher
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.retrieval.v1.shard_pb2_grpc import add_ShardServiceServicer_to_server
from penstock.settings import ServiceSettings
from retrieval_svc.cluster.coordinator import Coordinator
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.remote_node import RemoteNode
from retrieval_svc.cluster.servicer import ShardServicer
from retrieval_svc.cluster.statistics import Event
from retrieval_svc.cluster.topology import Topology, parse_topology
from retrieval_svc.filters import Filter
from retrieval_svc.search.gathering import Gathered, GatheredRows
from retrieval_svc.values import (
    Collection,
    CollectionSpec,
    FetchedRows,
    MatchedRows,
    Metric,
    Ranked,
    Sequences,
    ShardAnswer,
    ShardFound,
    ShardQuery,
    UnmetCondition,
    Visibility,
)

SERVICE = "penstock.retrieval.v1.ShardService"


def collection(shard_count: int, *, uid: int = 0) -> Collection:
    spec = CollectionSpec(
        id="texts",
        embedding_model="",
        embedding_fingerprint="",
        dimension=1,
        metric=Metric.INNER_PRODUCT,
        shard_count=shard_count,
    )
    return Collection(uid=uid, spec=spec, chunk_count=0)


def query(number: float = 1.0, **more: object) -> ShardQuery:
    return ShardQuery(**{"vector": np.array([number], dtype=np.float32), "limit": 10, **more})  # type: ignore[arg-type]


class FakeNode:
    """Holds rows of one component: shard -> sequence number -> value; a row's score is the product with the query's.

    `before` runs before each answer: it sleeps, raises, or waits for ever. `calls` has every search's queries.
    """

    def __init__(self, rows: Mapping[int, Mapping[int, float]], before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.rows = rows
        self.before = before
        self.calls: list[Sequence[ShardQuery]] = []
        self.positions: list[Mapping[int, int]] = []
        self.fetches: list[tuple[int, list[int]]] = []
        self.unmet: dict[int, tuple[UnmetCondition, ...]] = {}
        self.running = 0
        self.cancelled = 0

    async def search(self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], /) -> list[ShardAnswer]:
        self.calls.append(queries)
        self.positions.append(dict(shards))
        await self._wait()
        return [self._answer(shard, queries) for shard in shards]

    async def fetch(self, uid: int, shard: int, at_least: int, sequences: Sequences, /, *, with_vectors: bool) -> FetchedRows:
        self.fetches.append((at_least, sequences.tolist()))
        await self._wait()
        there = [number for number in reversed(sequences.tolist()) if number in self.rows[shard]]
        vectors = np.array([[self.rows[shard][number]] for number in there], dtype=np.float32).reshape(len(there), 1)
        chunks = tuple(f"{shard}/{number}".encode() for number in there)
        return FetchedRows(sequences=np.array(there, dtype=np.int64), chunks=chunks, vectors=vectors if with_vectors else None)

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility, /) -> MatchedRows:
        await self._wait()
        there = np.array(sorted(self.rows[shard]), dtype=np.int64)
        return MatchedRows(sequences=there, unmet=self.unmet.get(shard, ()), row_count=len(there))

    def _answer(self, shard: int, queries: Sequence[ShardQuery]) -> ShardAnswer:
        found = tuple(self._found(shard, each) for each in queries)
        return ShardAnswer(shard=shard, found=found, row_count=len(self.rows[shard]))

    def _found(self, shard: int, asked: ShardQuery) -> ShardFound:
        unmet = self.unmet.get(shard, ()) if asked.filter is not None else ()
        dense = None if asked.vector is None else self._ranked(shard, float(asked.vector[0]), asked)
        lexical = self._ranked(shard, float(len(asked.text)), asked) if asked.text else None
        return ShardFound(dense=dense, lexical=lexical, unmet=unmet)

    def _ranked(self, shard: int, factor: float, asked: ShardQuery) -> Ranked:
        best = sorted((-factor * value, number) for number, value in self.rows[shard].items())[: asked.limit]
        numbers = [number for _, number in best]
        return Ranked(
            scores=np.array([-score for score, _ in best], dtype=np.float32),
            sequences=np.array(numbers, dtype=np.int64),
            chunks=tuple(f"{shard}/{number}".encode() for number in numbers) if asked.with_chunks else (),
        )

    async def _wait(self) -> None:
        self.running += 1
        try:
            if self.before is not None:
                await self.before()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def pausing(seconds: float) -> Callable[[], Awaitable[None]]:
    async def pause() -> None:
        await asyncio.sleep(seconds)

    return pause


async def forever() -> None:
    await asyncio.Event().wait()


@dataclass
class CountingStatistics:
    events: dict[Event, int] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    fan_outs: int = 0

    def happened(self, event: Event, count: int = 1) -> None:
        self.events[event] = self.events.get(event, 0) + count

    def batch_sent(self, size: int) -> None:
        self.batches.append(size)

    def fanned_out(self, seconds: float) -> None:
        self.fan_outs += 1


@dataclass
class Served:
    """A node behind a real server."""

    node: FakeNode
    address: str
    stop: Callable[[], Awaitable[None]]


@asynccontextmanager
async def serving(
    node: FakeNode, *, concurrency_max: int = 512, tracers: TracerProvider | None = None
) -> AsyncIterator[Served]:
    chain = (
        Tracing((tracers or NoOpTracerProvider()).get_tracer("test")),
        ErrorBoundary(),
        Admission(concurrency_max),
        Deadline(),
    )
    dispatcher = Dispatcher((SERVICE,), chain)
    add_ShardServiceServicer_to_server(ShardServicer(node), dispatcher)  # type: ignore[no-untyped-call]
    health = Health((SERVICE,))
    server = grpc_server(ServiceSettings(), dispatcher, health)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    dispatcher.ready = True
    health.serve()

    async def stop() -> None:
        await server.stop(0)

    try:
        yield Served(node=node, address=f"127.0.0.1:{port}", stop=stop)
    finally:
        await server.stop(0)


@asynccontextmanager
async def coordinating(
    node: FakeNode,
    topology: Topology | str,
    *,
    slot_count: int = 2,
    limits: ClusterLimits | None = None,
    statistics: CountingStatistics | None = None,
    tracers: TracerProvider | None = None,
    resolve: Resolve = resolve_by_dns,
) -> AsyncIterator[Coordinator]:
    """A started coordinator in slot 0 whose remote nodes are reached over gRPC."""
    provider = tracers or NoOpTracerProvider()
    limits = limits or ClusterLimits()
    coordinator = Coordinator(
        parse_topology(topology, slot_count=slot_count) if isinstance(topology, str) else topology,
        node=node,
        connect=lambda address: RemoteNode(
            address, timeout_s=limits.call_timeout_s, message_bytes_max=2**24, tracer_provider=provider
        ),
        tracer=provider.get_tracer("test"),
        limits=limits,
        statistics=statistics or CountingStatistics(),
        resolve=resolve,
    )
    await coordinator.start()
    try:
        yield coordinator
    finally:
        await coordinator.close()


HERE = {0: {1: 0.5, 2: 2.0, 3: 0.1}}
THERE = {1: {1: 1.0, 5: 0.2}}
TWO_SHARDS = collection(2)
"""Shard 0 lies on slot 0, where the coordinator is, and shard 1 on slot 1."""
PATIENT = ClusterLimits(hedge_delay_min_s=5.0, hedge_delay_max_s=5.0)
"""Never hedges within a test."""
HASTY = ClusterLimits(hedge_delay_min_s=0.02, hedge_delay_max_s=0.02)


async def search(coordinator: Coordinator, *queries: ShardQuery, partial: bool = False) -> list[Gathered]:
    return await coordinator.gather(TWO_SHARDS, list(queries) or [query()], at_least={}, allow_partial=partial)


def places(side: GatheredRows | None) -> list[tuple[int, int]]:
    assert side is not None
    return list(zip(side.shards.tolist(), side.sequences.tolist(), strict=True))


EVERY_ROW = [(0, 2), (1, 1), (0, 1), (1, 5), (0, 3)]
