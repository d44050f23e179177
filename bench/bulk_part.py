"""Part "bulk": `penstock index build` over Parquet with ready vectors: time, CPU and memory by phase. Takes long."""

import asyncio
import resource
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.corpus import DIMENSION, clustered_blocks, passages
from bench.meter import MIB, Memory, memory_of
from bench.plan import Plan
from bench.report import PartResult, Table, number
from bench.rounds import Tell
from penstock.cli.build_process import run_bulk

NAME: Final = "bulk"
_VECTOR_BYTES: Final = 4 * DIMENSION
_WATCH_S: Final = 0.2
_PHASES: Final = ("rows", "shards")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A collection to build."""

    chunks: int
    shards: int
    kind: str
    workers: int = 1

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.chunks:,} in {self.shards}, {self.kind}, {self.workers} at a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What building one took: seconds and highest memory by phase, of the process that drives it and its workers together."""

    case: Case
    seconds: Mapping[str, float]
    cpu_s: float
    peaks: Mapping[str, Memory]
    recall: float | None
    size_bytes: int


@dataclass(slots=True)
class _Watch:
    """The highest memory of this process's children in each phase."""

    phase: str = "rows"
    anonymous: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    resident: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, told: Mapping[str, Any]) -> None:
        self.phase = told["phase"]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            for child in psutil.Process().children():
                memory = memory_of(child.pid)
                self.anonymous[self.phase] = max(self.anonymous[self.phase], memory.anonymous_mib)
                self.resident[self.phase] = max(self.resident[self.phase], memory.rss_mib)
            await asyncio.sleep(_WATCH_S)

    def peaks(self) -> dict[str, Memory]:
        return {phase: Memory(rss_mib=self.resident[phase], anonymous_mib=self.anonymous[phase]) for phase in _PHASES}


def cases(plan: Plan) -> tuple[Case, ...]:
    """A tenth and all of `plan.large_size`: memory is to follow the shards' size, not the corpus's."""
    tenth, whole = plan.large_size // 10, plan.large_size
    return (
        Case(chunks=tenth, shards=1, kind="hnsw"),
        Case(chunks=whole, shards=10, kind="hnsw"),
        Case(chunks=whole, shards=1, kind="hnsw"),
        Case(chunks=whole, shards=1, kind="ivf_sq8"),
    )


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part once: what it takes is long enough to be steady."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Nothing else runs yet.
    files: dict[int, Path] = {}
    built: list[Built] = []
    for case in cases(plan):
        if case.chunks not in files:
            tell(f"bulk: writing {case.chunks:,} vectors as Parquet")
            files[case.chunks] = await asyncio.to_thread(write_corpus, folder / f"{case.chunks}.parquet", case.chunks)
        tell(f"bulk: building {case.name}")
        built.append(await build(case, files[case.chunks], folder / f"data-{len(built)}"))
    return PartResult(name=NAME, tables=(bulk_table(built),), raw=tuple(asdict(each) for each in built))


def write_corpus(path: Path, count: int) -> Path:
    """Ids, texts of 500 characters, a number and a vector, a block of rows at a time."""
    texts, at = passages(count), 0
    schema = pa.schema(
        [("id", pa.string()), ("text", pa.string()), ("number", pa.int64()), ("vector", pa.list_(pa.float32(), DIMENSION))]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for block in clustered_blocks(count):
            rows = range(at, at + len(block))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), DIMENSION)
            columns = [[f"c{row}" for row in rows], [next(texts) for _ in rows], list(rows), vectors]
            writer.write_table(pa.table(columns, schema=schema))
            at += len(block)
    return path


async def build(case: Case, corpus: Path, folder: Path) -> Built:
    """Builds a collection as `penstock index build` does. Raises RuntimeError when it lacks a chunk."""
    job = {
        "paths": [str(corpus)],
        "collection": "bench",
        "dimension": DIMENSION,
        "shard_count": case.shards,
        "index": {"kind": case.kind},
        "workers": case.workers,
    }
    watch, began = _Watch(), _children_cpu_s()
    async with watch.watching():
        result = await run_bulk({"build": job}, {"PENSTOCK_RETRIEVAL_DATA_DIR": str(folder)}, on_progress=watch)
    if result["chunk_count"] != case.chunks:
        raise RuntimeError(f"{result['chunk_count']} of {case.chunks} chunks were built")
    return Built(
        case=case,
        seconds=result["seconds"],
        cpu_s=_children_cpu_s() - began,
        peaks=watch.peaks(),
        recall=result["recall"],
        size_bytes=result["size_bytes"],
    )


def bulk_table(built: Sequence[Built]) -> Table:
    """A row a collection."""
    return Table(
        title="penstock index build: ready vectors x 384 with 500 characters from Parquet, SQLite, words indexed too",
        note="Memory: the highest of the process and its workers together; anonymous is what no file holds (RssAnon). To "
        "vectors: the highest anonymous memory of all to the vectors' own bytes. Recall@10 of 100 stored vectors a shard.",
        columns=(
            "chunks", "shards", "index", "at a time", "recording s", "indexing s", "CPU s", "chunks/s",
            "anonymous MiB, recording", "anonymous MiB, indexing", "RSS MiB", "vectors MiB", "to vectors", "recall@10",
        ),
        rows=tuple(_row(each) for each in built),
    )  # fmt: skip


def _row(built: Built) -> tuple[str, ...]:
    case, highest = built.case, max(peak.anonymous_mib for peak in built.peaks.values())
    vectors_mib = case.chunks * _VECTOR_BYTES / MIB
    return (
        f"{case.chunks:,}",
        str(case.shards),
        case.kind,
        str(case.workers),
        number(built.seconds["rows"]),
        number(built.seconds["shards"]),
        number(built.cpu_s),
        number(case.chunks / sum(built.seconds.values())),
        number(built.peaks["rows"].anonymous_mib, 4),
        number(built.peaks["shards"].anonymous_mib, 4),
        number(max(peak.rss_mib for peak in built.peaks.values()), 4),
        number(vectors_mib, 4),
        f"{highest / vectors_mib:.2f} x",
        "exact" if built.recall is None else f"{built.recall:.4f}",
    )


def _children_cpu_s() -> float:
    """Of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
