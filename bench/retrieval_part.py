"""Part "retrieval": single and batch searches of an HNSW collection over gRPC, beside FAISS over the same graph in a loop."""

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.closed_loop import Sample
from bench.corpus import DIMENSION, Matrix, clustered_blocks, clustered_vectors, passages
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.retrieval_tables import search_table
from bench.rounds import Tell, turned
from penstock.clients import Chunk, Index, Lexical, RetrievalClient
from penstock.errors import AlreadyExists
from penstock.retrieval.v1 import retrieval_pb2 as pb

NAME: Final = "retrieval"
TOP_K: Final = 10
BATCH: Final = 32
HNSW: Final = Index(kind="hnsw", hnsw_m=32, hnsw_ef_construction=80)
EFS: Final = (64, 32)
QUERIES: Final = 512
_SERVICE: Final = "/penstock.retrieval.v1.RetrievalService"
_WITHOUT_MODEL: Final = {"PENSTOCK_RETRIEVAL_EMBEDDING_MODEL": ""}
_REFERENCE_SHARE: Final = 0.5
_STORED_TOGETHER: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of asking: how many calls are in flight, and how many queries are in each."""

    name: str
    in_flight: int
    batch: int

    @property
    def method(self) -> str:
        return f"{_SERVICE}/{'SearchBatch' if self.batch > 1 else 'Search'}"


WAYS: Final = (
    Way(name="Search", in_flight=1, batch=1),
    Way(name="Search", in_flight=32, batch=1),
    Way(name="SearchBatch of 32", in_flight=1, batch=BATCH),
    Way(name="SearchBatch of 32", in_flight=4, batch=BATCH),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row, a sample and two references a round: CPU microseconds a query of FAISS, one by one and 32 a call."""

    ef: int
    way: Way
    recall: float
    faiss_recall: float
    service: list[Sample] = field(default_factory=list)
    alone_us: list[float] = field(default_factory=list)
    batched_us: list[float] = field(default_factory=list)

    @property
    def service_us(self) -> list[float]:
        """CPU microseconds a query of the service, a round each."""
        return [1000 * sample.cpu_ms("retrieval") / self.way.batch for sample in self.service]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    target: str
    pids: dict[str, list[int]]
    client: processes.Worker
    faiss: processes.Worker
    queries: Matrix


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part over `plan.graph_size` chunks. What is built is kept in `plan.cache`, where there is one."""
    kept = Path(plan.cache) if plan.cache else folder
    async with _running(kept, plan.graph_size, tell) as bench:
        rows = [row for ef in EFS for row in await _rows(bench, plan, ef)]
        for number in range(plan.rounds):
            for ef in turned(EFS, number):
                tell(f"retrieval: {plan.graph_size:,} chunks, ef {ef}, round {number + 1} of {plan.rounds}")
                await _round(bench, plan, [row for row in rows if row.ef == ef], number)
    return PartResult(name=NAME, tables=(search_table(rows, plan.graph_size),), raw=tuple(_raw(rows, plan.graph_size)))


@asynccontextmanager
async def _running(kept: Path, count: int, tell: Tell) -> AsyncIterator[_Bench]:
    kept.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Nothing else runs yet.
    async with (
        processes.services(kept / f"service-{count}", ("retrieval",), _WITHOUT_MODEL) as stack,
        processes.worker("load", kept) as client,
        processes.worker("faiss", kept) as faiss,
    ):
        target = stack.services["retrieval"].grpc
        tell(f"retrieval: {count:,} chunks are stored, and FAISS builds its graph")
        await stored(target, count)
        file = str(kept / f"hnsw-{count}.faiss")
        await faiss.ask("build_hnsw", count=count, m=HNSW.hnsw_m, ef_construction=HNSW.hnsw_ef_construction, file=file)
        queries = clustered_vectors(QUERIES, queries=True)
        yield _Bench(target=target, pids=processes.pids(stack), client=client, faiss=faiss, queries=queries)


async def stored(target: str, count: int) -> None:
    """A collection of the bench's vectors with 500 characters each, as one segment; what is there already stays."""
    async with RetrievalClient(target) as client:
        try:
            await client.create_collection(
                collection_of(count), dimension=DIMENSION, index=HNSW, lexical=Lexical(enabled=False)
            )
        except AlreadyExists:
            return
        await client.upsert_chunks(collection_of(count), chunks_of(count), batch_size_max=_STORED_TOGETHER)
        await client.compact_collection(collection_of(count), timeout_s=3600)


def chunks_of(count: int) -> Iterator[Chunk]:
    """The bench's vectors with texts."""
    vectors = (vector for block in clustered_blocks(count) for vector in block)
    for row, (text, vector) in enumerate(zip(passages(count), vectors, strict=True)):
        yield Chunk(id=f"c{row}", document_id=f"d{row}", text=text, vector=vector.tobytes())


async def _rows(bench: _Bench, plan: Plan, ef: int) -> list[Row]:
    exact = await _found(bench, plan.graph_size, exact=True)
    found = await _found(bench, plan.graph_size, ef_search=ef)
    await bench.faiss.ask("set_ef", ef=ef)
    nearest = await bench.faiss.ask("nearest", queries=encoded(bench.queries), top_k=TOP_K)
    by_faiss = [{f"c{row}" for row in rows} for rows in nearest]
    return [Row(ef=ef, way=way, recall=share(exact, found), faiss_recall=share(exact, by_faiss)) for way in WAYS]


async def _found(bench: _Bench, count: int, **options: Any) -> list[set[str]]:
    async with RetrievalClient(bench.target) as client:
        found: list[set[str]] = []
        for at in range(0, len(bench.queries), BATCH):
            batch: Any = [{"query": each.tobytes(), "top_k": TOP_K, **options} for each in bench.queries[at : at + BATCH]]
            found += [{hit.chunk_id for hit in hits} for hits in await client.search_batch(collection_of(count), batch)]
    return found


def share(exact: Sequence[set[str]], found: Sequence[set[str]]) -> float:
    """Of the exact hits of all queries, the share that was found: recall."""
    return sum(len(best & hits) for best, hits in zip(exact, found, strict=True)) / sum(map(len, exact))


async def _round(bench: _Bench, plan: Plan, rows: Sequence[Row], number: int) -> None:
    """FAISS first, then every way of asking the service: within a few seconds they meet the same noise."""
    await bench.faiss.ask("set_ef", ef=rows[0].ef)
    asked = {"queries": encoded(bench.queries), "top_k": TOP_K, "seconds": plan.seconds * _REFERENCE_SHARE}
    alone = await bench.faiss.ask("search", batch=1, **asked)
    batched = await bench.faiss.ask("search", batch=BATCH, **asked)
    for row in turned(rows, number):
        options = {"target": bench.target, "method": row.way.method, "streams": False}
        payloads = requests(bench.queries, collection_of(plan.graph_size), row.way.batch, ef=row.ef)
        load = processes.load(payloads, in_flight=row.way.in_flight, seconds=plan.seconds, warmup_s=plan.warmup_s)
        row.service.append(await bench.client.sample(caller="grpc", options=options, load=load, pids=bench.pids))
        row.alone_us.append(alone["cpu_us"])
        row.batched_us.append(batched["cpu_us"])


def requests(queries: Matrix, collection: str, batch: int, *, ef: int | None = None) -> list[bytes]:
    """Searches as bytes, `batch` of them in each."""
    name = f"collections/{collection}"
    single = [pb.SearchRequest(collection=name, vector=each.tobytes(), top_k=TOP_K, ef_search=ef) for each in queries]
    if batch == 1:
        return [each.SerializeToString() for each in single]
    groups = [single[at : at + batch] for at in range(0, len(single) - batch + 1, batch)]
    return [pb.SearchBatchRequest(collection=name, requests=group).SerializeToString() for group in groups]


def collection_of(count: int) -> str:
    """The collection's id."""
    return f"bench-{count}"


def encoded(queries: Matrix) -> list[str]:
    """Queries for a worker."""
    return [base64.b64encode(query.tobytes()).decode() for query in queries]


def _raw(rows: Sequence[Row], count: int) -> list[dict[str, Any]]:
    samples = []
    for row in rows:
        labels = {"chunks": count, "ef": row.ef, "way": row.way.name, "calls_in_flight": row.way.in_flight}
        recalls = {"batch": row.way.batch, "recall": row.recall, "faiss_recall": row.faiss_recall}
        for number, sample in enumerate(raw(row.service, table="searches", **labels, **recalls)):
            beside = {"faiss_us": row.alone_us[number], "faiss_batched_us": row.batched_us[number]}
            samples.append({**sample, **beside, "service_us": row.service_us[number]})
    return samples
