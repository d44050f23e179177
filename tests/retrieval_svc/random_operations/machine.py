"""Random operations on a real process, each answer compared with the reference.

    Machine.step -> draws an operation -> asks the service -> compares -> changes the reference

The process is killed and started again, loses its files and gets them from a snapshot, finds a snapshot damaged. What it was
told to store while it was killed may be stored or not, but as a whole; the reference then takes over what is there.
"""

import asyncio
import contextlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict

from penstock.errors import InvalidArgument
from penstock.identity import PRINCIPALS_HEADER, write_principals
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from penstock.wire import from_rpc_error
from retrieval_svc.filter_messages import filter_message
from retrieval_svc.filters import Filter
from retrieval_svc.values import Metric
from tests.retrieval_svc.processes import Running, running
from tests.retrieval_svc.random_operations.drawing import DIMENSION, PRINCIPALS, Drawing
from tests.retrieval_svc.random_operations.reference import Reference, Row

_EPSILON: Final = 2e-4
_LIFE: Final = 400
"""Operations after which the process is killed."""
_SETTINGS: Final = {
    "head_rows_max": "128",
    "checkpoint_interval_s": "5",
    "log_entries_kept": "500",
    "snapshot_interval_s": "86400",
    "log_format": "text",
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one of the collections is indexed."""

    metric: int
    measured: Metric
    index: int
    shards: int


KINDS: Final = {
    "flat": Kind(metric=pb.METRIC_COSINE, measured=Metric.COSINE, index=pb.INDEX_KIND_FLAT, shards=2),
    "graph": Kind(metric=pb.METRIC_L2, measured=Metric.L2, index=pb.INDEX_KIND_HNSW, shards=1),
    "lists": Kind(metric=pb.METRIC_INNER_PRODUCT, measured=Metric.INNER_PRODUCT, index=pb.INDEX_KIND_IVF_SQ8, shards=1),
}


class Machine:
    """One run. `folder` holds the record, the process's data and the snapshots apart from one another."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._draw = Drawing(seed)
        self._collections = {name: Reference(metric=kind.measured) for name, kind in KINDS.items()}
        self._service: Running | None = None
        self._life = contextlib.AsyncExitStack()
        self.done: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.recalls: list[float] = []
        self.doing = ""
        # Operations and how often each is drawn, of 10,000.
        self._operations: dict[Callable[[], Awaitable[None]], int] = {
            self._upsert: 2500,
            self._delete: 700,
            self._delete_documents: 300,
            self._delete_by_filter: 300,
            self._search_exactly: 1700,
            self._search_nearly: 1700,
            self._search_words: 1200,
            self._search_both: 300,
            self._search_in_pages: 150,
            self._search_many: 250,
            self._read: 400,
            self._list: 120,
            self._count: 250,
            self._compact: 25,
            self._snapshot: 30,
        }
        # What ends the process costs seconds, and so has its turn.
        self._ends = itertools.cycle((self._kill, self._kill_under_writes, self._lose_files))
        self._until_end = _LIFE // 2

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator["Machine"]:
        await self._start()
        try:
            for name, kind in KINDS.items():
                await self._stub.CreateCollection(
                    pb.CreateCollectionRequest(
                        collection_id=name,
                        collection=pb.Collection(
                            dimension=DIMENSION,
                            metric=kind.metric,
                            shard_count=kind.shards,
                            index=pb.IndexConfig(kind=kind.index, ivf_lists=8 if name == "lists" else None),
                            lexical=pb.LexicalConfig(enabled=True, language="none" if name == "flat" else "en"),
                        ),
                    )
                )
            yield self
        finally:
            await self._life.aclose()

    async def step(self) -> None:
        """The next operation. Raises AssertionError where the service and the reference disagree."""
        [operation] = self._draw.random.choices(list(self._operations), list(self._operations.values()))
        self._until_end -= 1
        if self._until_end == 0:
            operation, self._until_end = next(self._ends), _LIFE
        self._name = self._draw.random.choice(list(KINDS))
        self._held = self._collections[self._name]
        self.doing = f"{operation.__name__.strip('_')} in {self._name}"
        began = time.monotonic()
        await operation()
        self.done[operation.__name__.strip("_")] += 1
        self.seconds[operation.__name__.strip("_")] += time.monotonic() - began

    @property
    def _stub(self) -> RetrievalServiceStub:
        assert self._service is not None
        return self._service.stub

    @property
    def _path(self) -> str:
        return f"collections/{self._name}"

    async def _start(self) -> None:
        self._service = await self._life.enter_async_context(
            running(
                self._folder,
                database_url=f"sqlite+aiosqlite:///{self._folder / 'record.db'}",
                snapshot_url=(self._folder / "snapshots").as_uri(),
                **_SETTINGS,
            )
        )

    async def _restart(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        assert self._service is not None
        await self._service.kill()
        await self._life.aclose()
        meanwhile()
        await self._start()

    # Writes.

    async def _upsert(self) -> None:
        rows = self._draw.rows(self._draw.random.choice((1, 1, 2, 5, 20)))
        await self._stub.UpsertChunks(self._upserting(rows))
        self._held.rows.update({row.id: row for row in rows})

    async def _delete(self) -> None:
        ids = self._draw.ids()
        deleted = await self._stub.DeleteChunks(pb.DeleteChunksRequest(collection=self._path, chunk_ids=ids))
        assert deleted.deleted_count == self._held.delete(ids)

    async def _delete_documents(self) -> None:
        documents = self._draw.document_ids()
        deleted = await self._stub.DeleteChunks(pb.DeleteChunksRequest(collection=self._path, document_ids=documents))
        assert deleted.deleted_count == self._held.delete(self._held.of_documents(documents))

    async def _delete_by_filter(self) -> None:
        condition = self._draw.narrow_filter()
        request = pb.DeleteChunksRequest(collection=self._path, filter=filter_message(condition))
        try:
            deleted = await self._stub.DeleteChunks(request)
        except grpc.aio.AioRpcError as error:
            self._check_refusal(error)
            return
        everyone = frozenset(PRINCIPALS)
        matching = [row.id for row in self._held.visible(everyone, condition)]
        assert deleted.deleted_count == self._held.delete(matching)

    # Searches.

    async def _search_exactly(self) -> None:
        await self._search_by_vector(exact=True)

    async def _search_nearly(self) -> None:
        await self._search_by_vector(exact=False)

    async def _search_by_vector(self, *, exact: bool) -> None:
        query, condition, principals = self._draw.vector(), self._condition(), self._draw.principals()
        top_k = self._draw.random.choice((1, 5, 10, 50, 500))
        request = self._asking(condition, vector=query.tobytes(), top_k=top_k, exact=exact)
        answer = await self._answered(request, principals)
        if answer is not None:
            rows = self._held.visible(principals, condition)
            self._check_dense(answer, self._held.scores(rows, query), top_k, exact=exact)

    async def _search_words(self) -> None:
        text, condition, principals = self._draw.words(), self._condition(), self._draw.principals()
        request = self._asking(condition, text=text, mode=pb.SEARCH_MODE_LEXICAL, top_k=1000)
        answer = await self._answered(request, principals)
        if answer is None:
            return
        words = set(text.split())
        expected = {row.id for row in self._held.visible(principals, condition) if words & set(row.text.split())}
        found = [hit.chunk.id for hit in answer.hits]
        assert sorted(found) == sorted(expected), f"words {text!r}: {told_apart(found, expected)}"
        self._check_hits(answer.hits)

    async def _search_both(self) -> None:
        query, text, condition, principals = self._draw.vector(), self._draw.words(), self._condition(), self._draw.principals()
        request = self._asking(condition, vector=query.tobytes(), text=text, mode=pb.SEARCH_MODE_HYBRID, top_k=20)
        answer = await self._answered(request, principals)
        if answer is not None:
            allowed = {row.id for row in self._held.visible(principals, condition)}
            found = [hit.chunk.id for hit in answer.hits]
            assert set(found) <= allowed, f"not to be found: {set(found) - allowed}"
            assert len(found) == len(set(found)) == min(20, len(allowed))
            self._check_hits(answer.hits)

    async def _search_in_pages(self) -> None:
        query, condition, principals = self._draw.vector(), self._condition(), self._draw.principals()
        scores = self._held.scores(self._held.visible(principals, condition), query)
        hits: list[pb.Hit] = []
        request = self._asking(condition, vector=query.tobytes(), top_k=7, exact=True)
        for _ in range(4):
            answer = await self._answered(request, principals)
            if answer is None:
                return
            hits += answer.hits
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
        self._check_dense(pb.SearchResponse(hits=hits), scores, 28, exact=True)

    async def _search_many(self) -> None:
        queries = [self._draw.vector() for _ in range(self._draw.random.randint(1, 8))]
        principals = self._draw.principals()
        requests = [self._asking(None, vector=query.tobytes(), top_k=5, exact=True) for query in queries]
        batch = pb.SearchBatchRequest(collection=self._path, requests=requests)
        answers = await self._stub.SearchBatch(batch, metadata=metadata_of(principals))
        rows = self._held.visible(principals)
        for query, answer in zip(queries, answers.responses, strict=True):
            self._check_dense(answer, self._held.scores(rows, query), 5, exact=True)

    # Reads.

    async def _read(self) -> None:
        ids, principals = list(dict.fromkeys(self._draw.ids())), self._draw.principals()
        request = pb.BatchGetChunksRequest(
            collection=self._path, chunk_ids=ids, fields=["metadata", "text", "document_id", "vector"]
        )
        answer = await self._stub.BatchGetChunks(request, metadata=metadata_of(principals))
        visible = {row.id for row in self._held.visible(principals)}
        assert [chunk.id for chunk in answer.chunks] == [chunk_id for chunk_id in ids if chunk_id in visible]
        for chunk in answer.chunks:
            self._check_chunk(chunk)
            vector = self._held.rows[chunk.id].vector
            given = np.frombuffer(chunk.vector, "<f4")
            assert np.allclose(given, vector, rtol=1e-6, atol=1e-7), f"{chunk.id} has {given}, not {vector}"

    async def _list(self) -> None:
        principals, ids, token = self._draw.principals(), list[str](), ""
        while True:
            request = pb.ListChunksRequest(collection=self._path, page_size=150, page_token=token)
            page = await self._stub.ListChunks(request, metadata=metadata_of(principals))
            ids += [chunk.id for chunk in page.chunks]
            token = page.next_page_token
            if not token:
                break
        assert ids == sorted(row.id for row in self._held.visible(principals))

    async def _count(self) -> None:
        collection = (await self._stub.GetCollection(pb.GetCollectionRequest(name=self._path))).collection
        assert collection.chunk_count == len(self._held.rows)
        status = await self._stub.GetCollectionStatus(pb.GetCollectionStatusRequest(name=self._path))
        assert sum(shard.row_count for shard in status.shards) == len(self._held.rows)

    # What operators do, and what happens to a process.

    async def _compact(self) -> None:
        answer = await self._stub.CompactCollection(pb.CompactCollectionRequest(name=self._path))
        assert sum(shard.row_count for shard in answer.shards) == len(self._held.rows)

    async def _snapshot(self) -> None:
        answer = await self._stub.CreateSnapshot(pb.CreateSnapshotRequest(collection=self._path))
        assert len(answer.snapshots) == KINDS[self._name].shards or not self._held.rows

    async def _kill(self) -> None:
        await self._restart()
        await self._count()

    async def _kill_under_writes(self) -> None:
        batches = self._draw.rows(12)
        before = dict(self._held.rows)
        pause_s = self._draw.random.uniform(0, 0.03)
        writes = [asyncio.ensure_future(self._stub.UpsertChunks(self._upserting(batches[at::4]))) for at in range(4)]
        await asyncio.sleep(pause_s)
        await self._restart()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        for at, outcome in enumerate(outcomes):
            await self._settle(batches[at::4], before, acknowledged=isinstance(outcome, pb.UpsertChunksResponse))
        await self._count()

    async def _settle(self, rows: Sequence[Row], before: dict[str, Row], *, acknowledged: bool) -> None:
        """Takes over what became of a write, all of which is there or nothing."""
        request = pb.BatchGetChunksRequest(collection=self._path, chunk_ids=[row.id for row in rows])
        answer = await self._stub.BatchGetChunks(request, metadata=metadata_of(frozenset(PRINCIPALS)))
        there = {chunk.id: chunk.text for chunk in answer.chunks}
        if all(there.get(row.id) == row.text for row in rows):
            self._held.rows.update({row.id: row for row in rows})
            return
        assert not acknowledged, f"a write that was acknowledged is not there: {[row.id for row in rows]}"
        former = {row.id: before[row.id].text for row in rows if row.id in before}
        assert there == former, f"a write is there in part: {there}, before it {former}"

    async def _lose_files(self) -> None:
        place = self._draw.random.random() if self._draw.random.random() < 0.4 else None
        await self._restart(meanwhile=lambda: self._remove_files(place))
        await self._count()

    def _remove_files(self, place: float | None) -> None:
        """Removes all that the process has beside the record. With a place, a byte of a snapshot's file is changed as well."""
        shutil.rmtree(self._folder / "data")
        if place is None:
            return
        files = sorted(path for path in (self._folder / "snapshots").rglob("*") if path.is_file() and path.stat().st_size)
        if files:
            victim = files[int(place * len(files))]
            content = bytearray(victim.read_bytes())
            content[int(place * len(content))] ^= 0xFF
            victim.write_bytes(content)

    # How answers are asked for and compared.

    def _condition(self) -> Filter | None:
        return self._draw.filter() if self._draw.random.random() < 0.5 else None

    def _asking(self, condition: Filter | None, **fields: object) -> pb.SearchRequest:
        filter_ = None if condition is None else filter_message(condition)
        return pb.SearchRequest(collection=self._path, filter=filter_, **fields)  # type: ignore[arg-type]

    def _upserting(self, rows: Sequence[Row]) -> pb.UpsertChunksRequest:
        chunks = []
        for row in rows:
            chunk = pb.Chunk(
                id=row.id,
                document_id=row.document_id,
                text=row.text,
                vector=row.vector.tobytes(),
                allowed_principals=sorted(row.principals),
            )
            chunk.metadata.update(row.metadata)
            chunks.append(chunk)
        return pb.UpsertChunksRequest(collection=self._path, chunks=chunks)

    async def _answered(self, request: pb.SearchRequest, principals: frozenset[str]) -> pb.SearchResponse | None:
        """The answer; None where the filter was rightly refused."""
        try:
            return await self._stub.Search(request, metadata=metadata_of(principals))
        except grpc.aio.AioRpcError as error:
            self._check_refusal(error)
            return None

    def _check_refusal(self, error: grpc.aio.AioRpcError) -> None:
        """Only a filter on a field that no row has, or has with another type, may be refused."""
        refusal = from_rpc_error(error)
        assert isinstance(refusal, InvalidArgument), refusal
        assert "metadata field" in refusal.message, refusal
        self.done["refused"] += 1
        name = refusal.metadata["field"]
        holders = [row for row in self._held.rows.values() if has_field(row.metadata, name)]
        assert not holders or "compares" in refusal.message, f"{refusal}, but {holders[0].id} has it"

    def _check_dense(self, answer: pb.SearchResponse, scores: dict[str, float], top_k: int, *, exact: bool) -> None:
        found = [hit.chunk.id for hit in answer.hits]
        ranked = sorted(scores.values(), reverse=True)
        assert len(set(found)) == len(found), f"an id comes twice: {found}"
        assert set(found) <= scores.keys(), f"not to be found: {set(found) - scores.keys()}"
        assert len(found) == min(top_k, len(scores)), f"{len(found)} hits of {min(top_k, len(scores))}"
        for hit in answer.hits:
            expected = scores[hit.chunk.id]
            assert abs(hit.score - expected) <= _EPSILON * max(1.0, abs(expected)), (
                f"{hit.chunk.id}: {hit.score}, not {expected}"
            )
        given = [hit.score for hit in answer.hits]
        assert given == sorted(given, reverse=True), "the hits are not in order"
        self._check_hits(answer.hits)
        if not found:
            return
        threshold = ranked[len(found) - 1]
        margin = _EPSILON * max(1.0, abs(threshold))
        near = sum(scores[chunk_id] >= threshold - margin for chunk_id in found)
        if exact:
            assert near == len(found), (
                f"a nearer row was left out: {told_apart(found, sorted(scores, key=scores.get)[-top_k:])}"
            )
        else:
            self.recalls.append(near / len(found))

    def _check_hits(self, hits: Sequence[pb.Hit]) -> None:
        for hit in hits:
            self._check_chunk(hit.chunk)

    def _check_chunk(self, chunk: pb.Chunk) -> None:
        row = self._held.rows[chunk.id]
        assert (chunk.text, chunk.document_id) == (row.text, row.document_id), f"{chunk.id} is an older version"
        assert MessageToDict(chunk.metadata) == row.metadata, f"{chunk.id} has other metadata"


def metadata_of(principals: frozenset[str]) -> list[tuple[str, str]]:
    return [(PRINCIPALS_HEADER, write_principals(principals))] if principals else []


def has_field(metadata: dict[str, object], name: str) -> bool:
    """Whether a row has a field, of any value but null."""
    head, _, rest = name.partition(".")
    value = metadata.get(head)
    if not rest:
        return value is not None
    return isinstance(value, dict) and has_field(value, rest)


def told_apart(found: Sequence[str], expected: object) -> str:
    wanted = set(expected)  # type: ignore[call-overload]
    return f"missing {sorted(wanted - set(found))[:10]}, too many {sorted(set(found) - wanted)[:10]}"
