"""Part "ingest": ready vectors over gRPC into SQLite, every batch durable when it is acknowledged, by CPU time."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import psutil

from bench import processes
from bench.corpus import DIMENSION
from bench.plan import Plan
from bench.report import PartResult, Table, number
from bench.retrieval_part import chunks_of
from bench.rounds import Tell, turned
from penstock.clients import Chunk, Index, Lexical, RetrievalClient

NAME: Final = "ingest"
CALLS: Final = 3
"""Calls in flight: the service parses one while it commits another."""
BATCH: Final = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A collection to fill."""

    name: str
    index: Index
    lexical: bool


KINDS: Final = (
    Kind(name="exact index", index=Index(kind="flat"), lexical=False),
    Kind(name="exact index, words indexed", index=Index(kind="flat"), lexical=True),
    Kind(name="HNSW", index=Index(kind="hnsw"), lexical=False),
    Kind(name="HNSW, words indexed", index=Index(kind="hnsw"), lexical=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """CPU and wall seconds until the last batch was acknowledged, and CPU until every row was in a segment, merged once."""

    chunks: int
    acknowledged_cpu_s: float
    acknowledged_s: float
    built_cpu_s: float
    client_cpu_s: float


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part over `plan.graph_size` chunks; a service and a folder of its own for every fill."""
    chunks = await asyncio.to_thread(list, chunks_of(plan.graph_size))
    found: dict[str, list[Filled]] = {kind.name: [] for kind in KINDS}
    for each in range(plan.rounds):
        for kind in turned(KINDS, each):
            tell(f"ingest: {plan.graph_size:,} chunks, {kind.name}, round {each + 1} of {plan.rounds}")
            found[kind.name].append(await _filled(kind, chunks, folder / f"{kind.name}-{each}"))
    samples = (
        {"kind": name, "round": each, **asdict(fill)} for name, fills in found.items() for each, fill in enumerate(fills)
    )
    return PartResult(name=NAME, tables=(ingest_table(found, plan.graph_size),), raw=tuple(samples))


async def _filled(kind: Kind, chunks: Sequence[Chunk], folder: Path) -> Filled:
    async with processes.services(folder, ("retrieval",), {"PENSTOCK_RETRIEVAL_EMBEDDING_MODEL": ""}) as stack:
        retrieval = stack.services["retrieval"]
        service, own = psutil.Process(retrieval.process.pid), psutil.Process()
        async with RetrievalClient(retrieval.grpc) as client:
            lexical = Lexical(enabled=kind.lexical)
            await client.create_collection("bench", dimension=DIMENSION, index=kind.index, lexical=lexical)
            began, own_began = asyncio.get_running_loop().time(), _cpu_s(own)
            at_first = _cpu_s(service)
            await send(client, "bench", chunks)
            acknowledged, took = _cpu_s(service), asyncio.get_running_loop().time() - began
            own_cpu_s = _cpu_s(own) - own_began
            await client.compact_collection("bench", timeout_s=3600)
            return Filled(
                chunks=len(chunks),
                acknowledged_cpu_s=acknowledged - at_first,
                acknowledged_s=took,
                built_cpu_s=_cpu_s(service) - at_first,
                client_cpu_s=own_cpu_s,
            )


async def send(client: RetrievalClient, collection: str, chunks: Iterable[Chunk]) -> None:
    """Stores chunks with CALLS calls in flight."""
    batches = groups(chunks, BATCH)

    async def sender() -> None:
        for batch in batches:
            await client.upsert_chunks(collection, batch, batch_size_max=BATCH)

    await asyncio.gather(*(sender() for _ in range(CALLS)))


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most so many of them."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def ingest_table(found: Mapping[str, Sequence[Filled]], count: int) -> Table:
    """A row a kind of collection."""
    return Table(
        title=f"Ingest of {count:,} ready vectors x 384 with 500 characters over gRPC, SQLite, durable when acknowledged",
        note="Chunks a second of CPU time of the service and its children: until the last was acknowledged, and "
        "until everything was indexed and merged into one segment. 10,000 are to be acknowledged.",
        columns=(
            "collection",
            "acknowledged/CPU s",
            "acknowledged/s",
            "indexed/CPU s",
            "CPU cores busy",
            "client CPU us/chunk",
        ),
        rows=tuple(_row(name, fills) for name, fills in found.items()),
    )


def _row(name: str, fills: Sequence[Filled]) -> tuple[str, ...]:
    return (
        name,
        number(median(fill.chunks / fill.acknowledged_cpu_s for fill in fills)),
        number(median(fill.chunks / fill.acknowledged_s for fill in fills)),
        number(median(fill.chunks / fill.built_cpu_s for fill in fills)),
        number(median(fill.acknowledged_cpu_s / fill.acknowledged_s for fill in fills)),
        number(median(1e6 * fill.client_cpu_s / fill.chunks for fill in fills)),
    )


def _cpu_s(process: psutil.Process) -> float:
    """Of a process, of those of its children that ended, and of those that run."""
    times: Any = process.cpu_times()
    running = sum(_cpu_s(child) for child in process.children())
    return float(times.user + times.system + times.children_user + times.children_system + running)
