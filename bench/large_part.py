"""Part "large": memory while a million ready vectors come in, and how soon they are served again after a stop. Takes long."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench import processes
from bench.corpus import DIMENSION, clustered_vectors
from bench.ingest_part import groups, send
from bench.meter import MIB, Memory, memory_of
from bench.plan import Plan
from bench.report import PartResult, Table, number
from bench.retrieval_part import chunks_of
from bench.rounds import Tell
from penstock.cli.local import LocalStack
from penstock.clients import Lexical, RetrievalClient

NAME: Final = "large"
_STEPS: Final = 10
_VECTOR_BYTES: Final = 4 * DIMENSION
_WATCH_S: Final = 0.2
_QUIET_S: Final = 900.0
_QUERIES: Final = 20
_CALL_S: Final = 3600.0
"""Merging a million vectors into one graph is one call, and longer than what a service grants unless it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After so many chunks: memory then and at its highest since the step before, of the service and its children together."""

    when: str
    chunks: int
    now: Memory
    anonymous_peak_mib: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a service came up: seconds from its process's start to SERVING, of CPU too, and to the first answer."""

    how: str
    serving_s: float
    serving_cpu_s: float
    answered_s: float
    found: int
    memory: Memory


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part over `plan.large_size` chunks."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Nothing else runs yet.
    steps, kind = await _filled(plan.large_size, folder, tell)
    starts = []
    for each in range(plan.rounds):
        tell(f"large: starting again, round {each + 1} of {plan.rounds}")
        starts.append(await _started("from its own checkpoint", plan.large_size, folder))
    for each in range(plan.rounds):
        tell(f"large: starting from a snapshot, round {each + 1} of {plan.rounds}")
        shutil.rmtree(folder / "retrieval/shards")
        starts.append(await _started("from a snapshot, without files of its own", plan.large_size, folder))
    tables = (_memory_table(steps, plan.large_size, kind), _starts_table(starts, plan.large_size))
    samples = [{"table": "memory", **asdict(step)} for step in steps] + [
        {"table": "starts", **asdict(start)} for start in starts
    ]
    return PartResult(name=NAME, tables=tables, raw=tuple(samples))


async def _filled(count: int, folder: Path, tell: Tell) -> tuple[list[Step], str]:
    async with _service(folder) as stack, RetrievalClient(stack.services["retrieval"].grpc) as client:
        watch = _Watch(stack.services["retrieval"].process.pid)
        steps = [watch.step("empty", 0)]
        await client.create_collection("bench", dimension=DIMENSION, lexical=Lexical(enabled=False))
        chunks, done = groups(chunks_of(count), max(1, count // _STEPS)), 0
        async with watch.watching():
            for part in chunks:
                tell(f"large: {done:,} of {count:,} chunks are stored")
                await send(client, "bench", part)
                done += len(part)
                steps.append(watch.step("coming in", done))
            tell("large: waiting until everything is indexed")
            await _indexed(client)
            steps.append(watch.step("indexed", done))
            await client.compact_collection("bench", timeout_s=_CALL_S)
            steps.append(watch.step("merged into one segment", done))
            tell("large: writing a snapshot")
            await client.create_snapshot("bench", timeout_s=_CALL_S)
            steps.append(watch.step("a snapshot written", done))
        return steps, (await client.get_collection("bench")).index_kind_in_use


async def _indexed(client: RetrievalClient) -> None:
    """Until the head has been empty, or has stayed as it is, for a while."""
    until = time.monotonic() + _QUIET_S
    before: Any = None
    while time.monotonic() < until:
        shards = await client.collection_status("bench")
        seen = [(shard.head_row_count, shard.segment_count, shard.size_bytes) for shard in shards]
        if seen == before:
            return
        before = seen
        await asyncio.sleep(5)


async def _started(how: str, count: int, folder: Path) -> Start:
    began = time.perf_counter()
    async with _service(folder) as stack:
        serving_s = time.perf_counter() - began
        used = psutil.Process(stack.services["retrieval"].process.pid).cpu_times()
        async with RetrievalClient(stack.services["retrieval"].grpc) as client:
            found = 0
            for query in clustered_vectors(_QUERIES, queries=True):
                found += len(await client.search("bench", query.tobytes()))
                if found <= 10:
                    answered_s = time.perf_counter() - began
            stored = (await client.get_collection("bench")).chunk_count
        if stored != count or found != 10 * _QUERIES:
            message = f"{stored} of {count} chunks and {found} of {10 * _QUERIES} hits after starting {how}"
            raise RuntimeError(message)
        memory = memory_of(stack.services["retrieval"].process.pid)
        return Start(
            how=how,
            serving_s=serving_s,
            serving_cpu_s=used.user + used.system,
            answered_s=answered_s,
            found=found,
            memory=memory,
        )


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[LocalStack]:
    environment = {
        "PENSTOCK_RETRIEVAL_EMBEDDING_MODEL": "",
        "PENSTOCK_RETRIEVAL_SNAPSHOT_URL": f"file://{folder}/snapshots",
        "PENSTOCK_RETRIEVAL_SNAPSHOT_INTERVAL_S": "86400",
        "PENSTOCK_RETRIEVAL_DEADLINE_S": str(_CALL_S),
    }
    async with processes.services(folder, ("retrieval",), environment) as stack:
        yield stack


class _Watch:
    """The highest anonymous memory since it was asked last."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0.0
        self._began = time.perf_counter()

    def step(self, when: str, chunks: int) -> Step:
        now = memory_of(self._pid)
        peak, self._peak = max(self._peak, now.anonymous_mib), 0.0
        seconds = time.perf_counter() - self._began
        return Step(when=when, chunks=chunks, now=now, anonymous_peak_mib=peak, seconds=seconds)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, memory_of(self._pid).anonymous_mib)
            await asyncio.sleep(_WATCH_S)


def _memory_table(steps: Sequence[Step], count: int, kind: str) -> Table:
    empty = steps[0].now
    return Table(
        title=f"Memory while {count:,} x 384 with 500 characters come in over gRPC, MiB, index kind auto (in the end {kind})",
        note="Of the service and processes below it. anonymous: what no file holds (RssAnon), and its highest since the row "
        "above. to vectors: that highest, less what the empty service has, to the vectors' own bytes; at most 1.5.",
        columns=("when", "chunks", "vectors", "RSS", "anonymous", "anonymous, highest", "to vectors", "seconds"),
        rows=tuple(
            (
                step.when,
                f"{step.chunks:,}",
                number(step.chunks * _VECTOR_BYTES / MIB, 4),
                number(step.now.rss_mib, 4),
                number(step.now.anonymous_mib, 4),
                number(step.anonymous_peak_mib, 4),
                f"{(step.anonymous_peak_mib - empty.anonymous_mib) * MIB / (step.chunks * _VECTOR_BYTES):.2f} x"
                if step.chunks
                else "-",
                number(step.seconds),
            )
            for step in steps
        ),
    )


def _starts_table(starts: Sequence[Start], count: int) -> Table:
    return Table(
        title=f"From the process's start with {count:,} chunks",
        note="To SERVING, everything loaded and checked by its checksums, and to the first answer of a search. At most 5 s.",
        columns=("start", "SERVING s", "of CPU", "first answer s", "RSS MiB", "anonymous MiB"),
        rows=tuple(
            (
                start.how,
                number(start.serving_s),
                number(start.serving_cpu_s),
                number(start.answered_s),
                number(start.memory.rss_mib, 4),
                number(start.memory.anonymous_mib, 4),
            )
            for start in starts
        ),
    )
