"""Part "cluster": several nodes and PostgreSQL. What a second replica brings, what fanning out costs, when writes are seen."""

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.closed_loop import Sample
from bench.cluster_tables import fan_out_table, replicas_table, visibility_table
from bench.corpus import DIMENSION, Matrix, clustered_vectors
from bench.ingest_part import send
from bench.meter import family
from bench.plan import Plan
from bench.postgres import Postgres, PostgresMissing, installed, postgres
from bench.processes import Worker
from bench.report import PartResult, raw
from bench.retrieval_part import HNSW, QUERIES, chunks_of, collection_of, requests
from bench.rounds import Tell, turned
from penstock.cli.local import Running
from penstock.clients import Chunk, Lexical, RetrievalClient

NAME: Final = "cluster"
IN_FLIGHT: Final = 32
SHARDS: Final = 4
WRITES_A_SECOND: Final = 200
REPLICAS: Final = 2
_METHOD: Final = "/penstock.retrieval.v1.RetrievalService/Search"
_POLL_S: Final = 0.002
_WATCHED_S_PER_WINDOW: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Nodes that run: `slots` groups of `replicas` each. Their names are the groups of processes that are metered."""

    nodes: tuple[Running, ...]

    def pids(self) -> dict[str, list[int]]:
        return {f"node {number}": family(node.process.pid) for number, node in enumerate(self.nodes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """So many nodes asked, each by a client of its own; a sample a node and a round."""

    name: str
    asked: tuple[int, ...]
    samples: list[list[Sample]]

    def rates(self) -> list[float]:
        """Queries a second of all nodes together, a round each."""
        return [sum(sample.rate for sample in samples) for samples in self.samples]

    def cpu_us(self) -> list[float]:
        """CPU microseconds a query of the nodes that were asked."""
        return [
            1e6
            * sum(sample.cpu_s[f"node {node}"] for node, sample in zip(self.asked, samples, strict=True))
            / sum(sample.requests for sample in samples)
            for samples in self.samples
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One that was acknowledged, with its position in the log."""

    acknowledged_at: float
    position: int
    took_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Milliseconds from a write's acknowledgement until a node's searches saw it; 0 where they did before it was told.

    `took_ms` is from a write's sending to its acknowledgement, the same for every node.
    """

    node: int
    wrote: bool
    waits_ms: list[float]
    took_ms: list[float]


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part over `plan.cluster_size` chunks. Without PostgreSQL there is nothing to run, and it says so."""
    try:
        programs = installed()
    except PostgresMissing as missing:
        return PartResult(name=f"{NAME}: {missing}", tables=(), raw=())
    async with postgres(programs) as database:
        throughputs, seen = await _replicas(plan, folder / "replicas", database, tell)
    async with postgres(programs) as database:
        fan_out = await _fan_out(plan, folder / "shards", database, tell)
    tables = (replicas_table(throughputs), fan_out_table(fan_out, plan.cluster_size), visibility_table(seen))
    samples: list[dict[str, Any]] = [
        {"table": "replicas", "name": each.name, "round": number, "nodes": [s for one in samples for s in raw([one])]}
        for each in throughputs
        for number, samples in enumerate(each.samples)
    ]
    samples += list(raw(fan_out, table="fan-out"))
    samples += [{"table": "visibility", "node": each.node, "waits_ms": each.waits_ms, "took_ms": each.took_ms} for each in seen]
    return PartResult(name=NAME, tables=tables, raw=tuple(samples))


async def _replicas(plan: Plan, folder: Path, database: Postgres, tell: Tell) -> tuple[list[Throughput], list[Visibility]]:
    tell("cluster: starting two replicas")
    async with _nodes(folder, database, slots=1, replicas=REPLICAS) as topology, AsyncExitStack() as stack:
        await _fill(topology.nodes[0].grpc, plan.cluster_size, shards=1)
        await _caught_up(topology, plan.cluster_size)
        clients = [await stack.enter_async_context(processes.worker("load", folder / f"client-{each}")) for each in range(2)]
        sides = [
            Throughput(name="one replica", asked=(0,), samples=[]),
            Throughput(name="two replicas", asked=(0, 1), samples=[]),
        ]
        for number in range(plan.rounds):
            for side in turned(sides, number):
                tell(f"cluster: {side.name}, round {number + 1} of {plan.rounds}")
                side.samples.append(await _asked(plan, topology, side.asked, clients))
        tell(f"cluster: {WRITES_A_SECOND} writes a second are watched on every replica")
        return sides, await _seen(topology, seconds=plan.seconds * _WATCHED_S_PER_WINDOW)


async def _asked(plan: Plan, topology: Topology, asked: Sequence[int], clients: Sequence[Worker]) -> list[Sample]:
    """Every node that is asked has IN_FLIGHT requests in flight from a client of its own, all at the same time."""
    payloads = requests(clustered_vectors(QUERIES, queries=True), collection_of(plan.cluster_size), 1)
    load = processes.load(payloads, in_flight=IN_FLIGHT, seconds=plan.seconds, warmup_s=plan.warmup_s)
    pids = topology.pids()

    async def one(node: int) -> Sample:
        options = {"target": topology.nodes[node].grpc, "method": _METHOD, "streams": False}
        return await clients[node].sample(caller="grpc", options=options, load=load, pids=pids)

    return list(await asyncio.gather(*map(one, asked)))


async def _fan_out(plan: Plan, folder: Path, database: Postgres, tell: Tell) -> list[Sample]:
    """A collection of SHARDS shards over one slot more: the node of the slot without a shard only coordinates."""
    tell(f"cluster: starting {SHARDS + 1} nodes")
    async with _nodes(folder, database, slots=SHARDS + 1, replicas=1) as topology, processes.worker("load", folder) as client:
        await _fill(topology.nodes[0].grpc, plan.cluster_size, shards=SHARDS)
        coordinator = await _without_shards(topology, plan.cluster_size)
        payloads = requests(clustered_vectors(QUERIES, queries=True), collection_of(plan.cluster_size), 1)
        load = processes.load(payloads, in_flight=IN_FLIGHT, seconds=plan.seconds, warmup_s=plan.warmup_s)
        own = topology.nodes[coordinator]
        others = [pid for node in topology.nodes if node is not own for pid in family(node.process.pid)]
        options = {"target": own.grpc, "method": _METHOD, "streams": False}
        pids = {"coordinator": family(own.process.pid), "shards": others}
        samples = []
        for number in range(plan.rounds):
            tell(f"cluster: fanning out, round {number + 1} of {plan.rounds}")
            samples.append(await client.sample(caller="grpc", options=options, load=load, pids=pids))
        return samples


async def _fill(target: str, count: int, *, shards: int) -> None:
    async with RetrievalClient(target) as client:
        lexical = Lexical(enabled=False)
        await client.create_collection(
            collection_of(count), dimension=DIMENSION, index=HNSW, shard_count=shards, lexical=lexical
        )
        await send(client, collection_of(count), chunks_of(count))


async def _caught_up(topology: Topology, count: int) -> None:
    """Every replica has all rows, in one segment."""
    for node in topology.nodes:
        async with RetrievalClient(node.grpc) as client, asyncio.timeout(300):
            rows = 0
            while rows < count:
                rows = sum(shard.row_count for shard in await client.collection_status(collection_of(count)))
                await asyncio.sleep(0.1)
            await client.compact_collection(collection_of(count))


async def _without_shards(topology: Topology, count: int) -> int:
    held = []
    for node in topology.nodes:
        async with RetrievalClient(node.grpc) as client:
            held.append(len(await client.compact_collection(collection_of(count))))
    return held.index(0)


async def _seen(topology: Topology, *, seconds: float) -> list[Visibility]:
    """Writes one chunk a call to the first node, and looks every POLL_S how far each node's searches have come."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RetrievalClient(node.grpc)) for node in topology.nodes]
        await clients[0].create_collection("seen", dimension=DIMENSION, index=HNSW, lexical=Lexical(enabled=False))
        stopped = asyncio.Event()
        watching = [asyncio.create_task(_positions(client, stopped)) for client in clients]
        writes = await _write(clients[0], clustered_vectors(2000), seconds)
        await asyncio.sleep(2)
        stopped.set()
        positions = await asyncio.gather(*watching)
    took = [write.took_ms for write in writes]
    return [
        Visibility(node=node, wrote=node == 0, waits_ms=waits_ms(writes, seen), took_ms=took)
        for node, seen in enumerate(positions)
    ]


async def _write(client: RetrievalClient, vectors: Matrix, seconds: float) -> list[Write]:
    """WRITES_A_SECOND, whatever the answers do."""
    writes: list[Write] = []

    async def write(number: int) -> None:
        vector, sent = vectors[number % len(vectors)].tobytes(), time.perf_counter()
        written = await client.upsert_chunks("seen", [Chunk(id=f"c{number}", text="seen", vector=vector)])
        at, position = time.perf_counter(), position_of(written.consistency_token)
        writes.append(Write(acknowledged_at=at, position=position, took_ms=1000 * (at - sent)))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(round(seconds * WRITES_A_SECOND)):
            await asyncio.sleep(max(0.0, began + number / WRITES_A_SECOND - time.perf_counter()))
            group.create_task(write(number))
    return writes


async def _positions(client: RetrievalClient, stopped: asyncio.Event) -> list[tuple[float, int]]:
    """The moments at which a node was asked, each with the position that its searches saw then at least."""
    seen = []
    while not stopped.is_set():
        shards = await client.collection_status("seen")
        seen.append((time.perf_counter(), shards[0].position if shards else 0))
        await asyncio.sleep(_POLL_S)
    return seen


def waits_ms(writes: Sequence[Write], seen: Sequence[tuple[float, int]]) -> list[float]:
    """For each write the time from its acknowledgement to the first look that found its position reached.

    Raises RuntimeError for a write that was never seen.
    """
    waits, looks = [], iter(seen)
    look = next(looks, None)
    for write in sorted(writes, key=lambda each: each.position):
        while look is not None and look[1] < write.position:
            look = next(looks, None)
        if look is None:
            message = f"a write at position {write.position} was acknowledged and never seen"
            raise RuntimeError(message)
        waits.append(max(0.0, 1000 * (look[0] - write.acknowledged_at)))
    return waits


def position_of(token: str) -> int:
    """The position in a consistency token of a write to one shard."""
    raw_token = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    _, ((_, position),) = orjson.loads(raw_token)
    return int(position)


@asynccontextmanager
async def _nodes(folder: Path, database: Postgres, *, slots: int, replicas: int) -> AsyncIterator[Topology]:
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(slots * replicas)]
    targets = ",".join("|".join(addresses[slot * replicas : (slot + 1) * replicas]) for slot in range(slots))
    async with AsyncExitStack() as stack:
        nodes = []
        for number, address in enumerate(addresses):
            environment = {
                "EMBEDDING_MODEL": "",
                "DATABASE_URL": database.url(),
                "GRPC_ADDRESS": address,
                "WRITES_MAX": "4096",
                "SLOT": str(number // replicas),
                "SLOTS": str(slots),
                "SLOT_TARGETS": targets,
            }
            own = {f"PENSTOCK_RETRIEVAL_{name}": value for name, value in environment.items()}
            started = await stack.enter_async_context(processes.services(folder / f"node-{number}", ("retrieval",), own))
            nodes.append(started.services["retrieval"])
        yield Topology(nodes=tuple(nodes))


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
