"""Part 2: what a search costs. The retrieval service over gRPC beside FAISS, and beside its embedding model, alone."""

import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.closed_loop import Sample
from bench.corpus import Matrix, clustered_vectors, passages, questions
from bench.meter import rss_mib
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.rounds import Tell
from bench.search_tables import search_tables
from penstock.clients import Chunk, Index, Lexical, RetrievalClient
from penstock.retrieval.v1 import retrieval_pb2

NAME: Final = "search"
TOP_K: Final = 10
IN_FLIGHT: Final = (1, 8, 32)
TEXT_IN_FLIGHT: Final = (1, 8, 32)
HNSW: Final = Index(kind="hnsw", hnsw_m=32, hnsw_ef_construction=80)
"""Of the collection that texts are searched in: what `auto` takes when there is much to search."""
_TEXTS: Final = "bench-texts"
QUERIES: Final = 512
QUERIES_COMPARED: Final = 200
_METHOD: Final = "/penstock.retrieval.v1.RetrievalService/Search"
_ENVIRONMENT: Final = {"PENSTOCK_RETRIEVAL_EMBEDDING_CACHE_BYTES_MAX": "0"}
"""The same questions come again and again: each is to be embedded."""
_REFERENCE_SHARE: Final = 0.5
"""Of a window's length: a reference has no warm-up and no other process to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Microseconds a query, of a library called in a process of its own. `batch` queries went into a call."""

    batch: int
    cpu_us: float
    wall_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: the service and, beside it in the same rounds, the library one query at a time and in equal batches."""

    chunks: int
    in_flight: int
    service: list[Sample]
    alone: list[Reference]
    batched: list[Reference]
    same_ids: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    target: str
    pid: int
    pids: dict[str, list[int]]
    client: processes.Worker
    faiss: processes.Worker
    embedder: processes.Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """What the service calls, called by a worker."""

    worker: processes.Worker
    task: str
    asked: dict[str, Any]

    async def run(self, batch: int, seconds: float) -> Any:
        return await self.worker.ask(self.task, batch=batch, seconds=seconds, **self.asked)


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part. Raises RuntimeError when the service does not find what FAISS finds."""
    async with _running(folder) as bench:
        memory = {"empty": rss_mib(bench.pid)}
        by_vector = []
        for count in plan.collection_sizes:
            tell(f"search: storing {count:,} chunks")
            await _store(bench, _collection(count), count, Index(kind="flat"))
            await bench.faiss.ask("build", count=count)
            memory[f"{count:,} chunks"] = rss_mib(bench.pid)
            by_vector += await _by_vector(bench, plan, count, tell)
        await _store(bench, _TEXTS, plan.collection_sizes[-1], HNSW)
        by_text = await _by_text(bench, plan, plan.collection_sizes[-1], tell)
        memory["after the last search"] = rss_mib(bench.pid)
    samples = [each for table, rows in (("vector", by_vector), ("text", by_text)) for row in rows for each in _raw(table, row)]
    return PartResult(
        name=NAME,
        tables=search_tables(by_vector, by_text, memory),
        raw=(*samples, {"table": "memory", "mib": memory}),
    )


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[_Bench]:
    async with (
        processes.services(folder, ("retrieval",), _ENVIRONMENT) as stack,
        processes.worker("load", folder) as client,
        processes.worker("faiss", folder) as faiss,
        processes.worker("embedder", folder, {"PENSTOCK_RETRIEVAL_DATA_DIR": str(folder / "retrieval")}) as embedder,
    ):
        retrieval = stack.services["retrieval"]
        yield _Bench(
            target=retrieval.grpc,
            pid=retrieval.process.pid,
            pids=processes.pids(stack),
            client=client,
            faiss=faiss,
            embedder=embedder,
        )


async def _store(bench: _Bench, collection: str, count: int, index: Index) -> None:
    """A collection of that many chunks, as one segment."""
    vectors, texts = clustered_vectors(count), passages(count)
    async with RetrievalClient(bench.target) as client:
        await client.create_collection(collection, index=index, lexical=Lexical(enabled=False))
        chunks = (
            Chunk(id=f"c{row}", document_id=f"d{row}", text=text, vector=vectors[row].tobytes())
            for row, text in enumerate(texts)
        )
        await client.upsert_chunks(collection, chunks, batch_size_max=1000)
        await client.compact_collection(collection, timeout_s=300)


async def _by_vector(bench: _Bench, plan: Plan, count: int, tell: Tell) -> list[Row]:
    queries = clustered_vectors(QUERIES, queries=True)
    same_ids = await _same_ids(bench, count, queries[:QUERIES_COMPARED])
    payloads = [_request(_collection(count), vector=query.tobytes()) for query in queries]
    library = _Library(worker=bench.faiss, task="search", asked={"queries": _encoded(queries), "top_k": TOP_K})
    rows = []
    for in_flight in IN_FLIGHT:
        row = Row(chunks=count, in_flight=in_flight, service=[], alone=[], batched=[], same_ids=same_ids)
        for round_number in range(plan.rounds):
            tell(f"search: {count:,} chunks by vector, {in_flight} in flight, round {round_number + 1} of {plan.rounds}")
            await _round(bench, plan, row, payloads, library)
        rows.append(row)
    return rows


async def _by_text(bench: _Bench, plan: Plan, count: int, tell: Tell) -> list[Row]:
    texts = questions(QUERIES)
    payloads = [_request(_TEXTS, text=text) for text in texts]
    library = _Library(worker=bench.embedder, task="embed", asked={"texts": texts})
    rows = []
    for in_flight in TEXT_IN_FLIGHT:
        row = Row(chunks=count, in_flight=in_flight, service=[], alone=[], batched=[])
        for round_number in range(plan.rounds):
            tell(f"search: {count:,} chunks by text, {in_flight} in flight, round {round_number + 1} of {plan.rounds}")
            await _round(bench, plan, row, payloads, library)
        rows.append(row)
    return rows


async def _round(bench: _Bench, plan: Plan, row: Row, payloads: Sequence[bytes], library: _Library) -> None:
    """Service and library, one after the other: within a second or two they meet the same noise."""
    seconds = plan.seconds * _REFERENCE_SHARE
    row.alone.append(Reference(batch=1, **await library.run(1, seconds)))
    load = processes.load(payloads, in_flight=row.in_flight, seconds=plan.seconds, warmup_s=plan.warmup_s)
    options = {"target": bench.target, "method": _METHOD, "streams": False}
    row.service.append(await bench.client.sample(caller="grpc", options=options, load=load, pids=bench.pids))
    batched = await library.run(row.in_flight, seconds)
    row.batched.append(Reference(batch=row.in_flight, **batched))


async def _same_ids(bench: _Bench, count: int, queries: Matrix) -> float:
    """Of the nearest that FAISS finds, the share that the service finds; its scores must fall."""
    expected = await bench.faiss.ask("nearest", queries=_encoded(queries), top_k=TOP_K)
    found = 0
    async with RetrievalClient(bench.target) as client:
        for query, rows in zip(queries, expected, strict=True):
            hits = await client.search(_collection(count), query.tobytes(), top_k=TOP_K)
            if any(before.score < after.score for before, after in pairwise(hits)):
                raise RuntimeError("the service's hits are not in the order of their scores")
            found += len({hit.chunk_id for hit in hits} & {f"c{row}" for row in rows})
    return found / (len(queries) * min(TOP_K, count))


def _request(collection: str, **query: Any) -> bytes:
    request = retrieval_pb2.SearchRequest(collection=f"collections/{collection}", top_k=TOP_K, **query)
    return request.SerializeToString()


def _collection(count: int) -> str:
    return f"bench-{count}"


def _encoded(queries: Matrix) -> list[str]:
    return [base64.b64encode(query.tobytes()).decode() for query in queries]


def _raw(table: str, row: Row) -> list[dict[str, Any]]:
    labels = {"table": table, "chunks": row.chunks, "in_flight": row.in_flight, "same_ids": row.same_ids}
    beside: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, references in (("alone", row.alone), ("batched", row.batched)):
        for number, reference in enumerate(references):
            beside[number][name] = {"cpu_us": reference.cpu_us, "wall_us": reference.wall_us}
    return [{**each, **beside[number]} for number, each in enumerate(raw(row.service, **labels))]
