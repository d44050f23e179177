"""A real grpc.aio server in the process, with small servicers of all three services that remember what they were asked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock import identity
from penstock.access import Access
from penstock.dispatcher import Dispatcher
from penstock.errors import (
    AlreadyExists,
    CollectionNotFound,
    EmptyText,
    FlowNotFound,
    InvalidFlow,
    ModelNotFound,
    PenstockError,
    Violation,
)
from penstock.flow.v1 import flow_pb2, flow_pb2_grpc
from penstock.generation.v1 import generation_pb2, generation_pb2_grpc
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from penstock.settings import ServiceSettings
from penstock.wire import to_status

SERVICES = (
    "penstock.flow.v1.FlowService",
    "penstock.flow.v1.RunService",
    "penstock.retrieval.v1.RetrievalService",
    "penstock.generation.v1.GenerationService",
)


class Flows(flow_pb2_grpc.FlowServiceServicer):
    """Keeps flows in a dict. A document that does not begin with a brace is invalid."""

    def __init__(self) -> None:
        self.flows: dict[str, flow_pb2.Flow] = {}
        self.pages_read = 0

    async def CreateFlow(self, request: Any, context: Any) -> flow_pb2.CreateFlowResponse:
        name = f"flows/{request.flow_id}"
        if name in self.flows and not request.replace:
            raise AlreadyExists(f"there is a flow {request.flow_id!r}", metadata={"flow": request.flow_id})
        if not request.document.startswith("{"):
            fault = Violation(message="not an object", suggestion="begin with a brace")
            raise InvalidFlow("the document has a fault", violations=[fault])
        self.flows[name] = flow_pb2.Flow(
            name=name,
            content_hash=hashlib.sha256(request.document.encode()).hexdigest(),
            document=request.document,
            inputs=[flow_pb2.FlowInput(name="question", type="text", required=True)],
            outputs=["answer"],
        )
        self.flows[name].create_time.FromSeconds(1_700_000_000)
        return flow_pb2.CreateFlowResponse(flow=self.flows[name])

    async def GetFlow(self, request: Any, context: Any) -> flow_pb2.GetFlowResponse:
        return flow_pb2.GetFlowResponse(flow=self._find(request.name))

    async def ListFlows(self, request: Any, context: Any) -> flow_pb2.ListFlowsResponse:
        self.pages_read += 1
        names, token = page(sorted(self.flows), request)
        flows = [flow_pb2.Flow(name=name, content_hash=self.flows[name].content_hash) for name in names]
        return flow_pb2.ListFlowsResponse(flows=flows, next_page_token=token)

    async def DeleteFlow(self, request: Any, context: Any) -> flow_pb2.DeleteFlowResponse:
        del self.flows[self._find(request.name).name]
        return flow_pb2.DeleteFlowResponse()

    async def ValidateFlow(self, request: Any, context: Any) -> flow_pb2.ValidateFlowResponse:
        if request.document.startswith("{"):
            return flow_pb2.ValidateFlowResponse(valid=True, content_hash="ab")
        fault = flow_pb2.Violation(node_id="ask", field="params.top_k", message="too large", suggestion="at most 1000")
        return flow_pb2.ValidateFlowResponse(violations=[fault])

    def _find(self, name: str) -> flow_pb2.Flow:
        if name not in self.flows:
            raise FlowNotFound(f"no flow {name!r}", metadata={"flow": name})
        return self.flows[name]


class Runs(flow_pb2_grpc.RunServiceServicer):
    """Runs whatever the test put in `stream`; the unary run answers with its `done`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.stream: Callable[[], AsyncIterator[flow_pb2.StreamFlowResponse]] = lambda: in_order([])
        self.closed = asyncio.Event()

    async def RunFlow(self, request: Any, context: Any) -> flow_pb2.RunFlowResponse:
        self.requests.append(request)
        async for event in self.stream():
            if event.HasField("done"):
                return event.done
        raise AssertionError("the test's stream has no done")

    async def StreamFlow(self, request: Any, context: Any) -> AsyncIterator[flow_pb2.StreamFlowResponse]:
        self.requests.append(request)
        try:
            async for event in self.stream():
                yield event
        finally:
            self.closed.set()


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Keeps chunks in dicts; a document is one chunk, and a search finds all chunks in the order of their ids."""

    def __init__(self) -> None:
        self.collections: dict[str, retrieval_pb2.Collection] = {}
        self.chunks: dict[str, retrieval_pb2.Chunk] = {}
        self.requests: list[Any] = []
        self.seen: list[identity.Identity] = []

    async def CreateCollection(self, request: Any, context: Any) -> retrieval_pb2.CreateCollectionResponse:
        name = f"collections/{request.collection_id}"
        self.collections[name] = retrieval_pb2.Collection(name=name)
        self.collections[name].MergeFrom(request.collection)
        return retrieval_pb2.CreateCollectionResponse(collection=self.collections[name])

    async def GetCollection(self, request: Any, context: Any) -> retrieval_pb2.GetCollectionResponse:
        return retrieval_pb2.GetCollectionResponse(collection=self._find(request.name))

    async def ListCollections(self, request: Any, context: Any) -> retrieval_pb2.ListCollectionsResponse:
        names, token = page(sorted(self.collections), request)
        found = [self.collections[name] for name in names]
        return retrieval_pb2.ListCollectionsResponse(collections=found, next_page_token=token)

    async def DeleteCollection(self, request: Any, context: Any) -> retrieval_pb2.DeleteCollectionResponse:
        del self.collections[self._find(request.name).name]
        return retrieval_pb2.DeleteCollectionResponse()

    async def IngestDocuments(self, request: Any, context: Any) -> retrieval_pb2.IngestDocumentsResponse:
        self.requests.append(request)
        self._find(request.collection)
        for document in request.documents:
            if not document.text.strip():
                raise EmptyText(f"document {document.id!r} has no text")
            self.chunks[f"{document.id}#0"] = retrieval_pb2.Chunk(
                id=f"{document.id}#0", document_id=document.id, text=document.text, metadata=document.metadata
            )
        count, token = len(request.documents), f"t{len(self.requests)}"
        return retrieval_pb2.IngestDocumentsResponse(
            document_count=count, chunk_count=count, unchanged_count=1, consistency_token=token
        )

    async def IngestStream(self, requests: Any, context: Any) -> retrieval_pb2.IngestStreamResponse:
        """Refuses, of each stream, the documents without a text."""
        answer, index = retrieval_pb2.IngestStreamResponse(consistency_token="t"), 0
        async for request in requests:
            self.requests.append(request)
            if request.collection:
                self._find(request.collection)
            for document in request.documents:
                if document.text:
                    answer.document_count += 1
                else:
                    answer.error_count += 1
                    error = to_status(EmptyText(f"document {document.id!r} has no text"))
                    answer.errors.add(index=index, document_id=document.id, error=error)
                index += 1
        return answer

    async def BatchGetChunks(self, request: Any, context: Any) -> retrieval_pb2.BatchGetChunksResponse:
        self.requests.append(request)
        found = [self.chunks[each] for each in request.chunk_ids if each in self.chunks]
        return retrieval_pb2.BatchGetChunksResponse(chunks=found)

    async def SearchBatch(self, request: Any, context: Any) -> retrieval_pb2.SearchBatchResponse:
        self.requests.append(request)
        hits = [retrieval_pb2.Hit(chunk=retrieval_pb2.Chunk(id=each.text or "vector"), score=1) for each in request.requests]
        return retrieval_pb2.SearchBatchResponse(responses=[retrieval_pb2.SearchResponse(hits=[hit]) for hit in hits])

    async def Embed(self, request: Any, context: Any) -> retrieval_pb2.EmbedResponse:
        self.requests.append(request)
        vectors = [b"\0\0\0\0" for _ in request.texts]
        return retrieval_pb2.EmbedResponse(
            vectors=vectors, dimension=1, model="minilm", embedding_fingerprint="f", token_count=7
        )

    async def ListModels(self, request: Any, context: Any) -> retrieval_pb2.ListModelsResponse:
        names, token = page(["big", "minilm"], request)
        models = [retrieval_pb2.Model(name=name, dimension=2, window_tokens=256, backend="torch fp32") for name in names]
        return retrieval_pb2.ListModelsResponse(models=models, next_page_token=token)

    async def GetCollectionStatus(self, request: Any, context: Any) -> retrieval_pb2.GetCollectionStatusResponse:
        return retrieval_pb2.GetCollectionStatusResponse(shards=[self._shard(request.name)])

    async def CompactCollection(self, request: Any, context: Any) -> retrieval_pb2.CompactCollectionResponse:
        return retrieval_pb2.CompactCollectionResponse(shards=[self._shard(request.name)])

    async def CreateSnapshot(self, request: Any, context: Any) -> retrieval_pb2.CreateSnapshotResponse:
        return retrieval_pb2.CreateSnapshotResponse(snapshots=[self._snapshot("new")])

    async def ListSnapshots(self, request: Any, context: Any) -> retrieval_pb2.ListSnapshotsResponse:
        ids, token = page(["b", "a"], request)
        return retrieval_pb2.ListSnapshotsResponse(snapshots=[self._snapshot(each) for each in ids], next_page_token=token)

    def _shard(self, name: str) -> retrieval_pb2.ShardStatus:
        self._find(name)
        return retrieval_pb2.ShardStatus(
            shard=1, position=5, record_position=6, row_count=4, deleted_row_count=1, head_row_count=2, segment_count=3,
            index_kind=retrieval_pb2.INDEX_KIND_HNSW, size_bytes=100,
        )  # fmt: skip

    def _snapshot(self, id_: str) -> retrieval_pb2.Snapshot:
        made = retrieval_pb2.Snapshot(id=id_, shard=1, position=5, size_bytes=10)
        made.create_time.FromSeconds(1_700_000_000)
        return made

    async def UpsertChunks(self, request: Any, context: Any) -> retrieval_pb2.UpsertChunksResponse:
        self.requests.append(request)
        self.chunks.update({chunk.id: chunk for chunk in request.chunks})
        return retrieval_pb2.UpsertChunksResponse(chunk_count=len(request.chunks))

    async def DeleteChunks(self, request: Any, context: Any) -> retrieval_pb2.DeleteChunksResponse:
        going = [
            chunk for chunk in self.chunks.values()
            if chunk.id in request.chunk_ids or chunk.document_id in request.document_ids
        ]  # fmt: skip
        for chunk in going:
            del self.chunks[chunk.id]
        return retrieval_pb2.DeleteChunksResponse(deleted_count=len(going))

    async def ListChunks(self, request: Any, context: Any) -> retrieval_pb2.ListChunksResponse:
        ids, token = page(sorted(self.chunks), request)
        return retrieval_pb2.ListChunksResponse(chunks=[self.chunks[each] for each in ids], next_page_token=token)

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:
        self.requests.append(request)
        self.seen.append(identity.current())
        self._find(request.collection)
        found = [self.chunks[each] for each in sorted(self.chunks)][: request.top_k or 10]
        hits = [retrieval_pb2.Hit(chunk=chunk, score=0.5 - 0.125 * rank) for rank, chunk in enumerate(found)]
        partial = request.allow_partial
        following = "" if request.page_token else "second"
        return retrieval_pb2.SearchResponse(
            hits=hits, partial=partial, missing_shards=[2] if partial else [], next_page_token=following
        )

    def _find(self, name: str) -> retrieval_pb2.Collection:
        if name not in self.collections:
            raise CollectionNotFound(f"no collection {name!r}")
        return self.collections[name]


class Generation(generation_pb2_grpc.GenerationServiceServicer):
    """Answers with the last thing said in capitals, a word a delta; the words go on for ever where `endless`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.pause: Callable[[], Awaitable[None]] | None = None
        self.endless = False
        self.closed = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> generation_pb2.GenerateResponse:
        words = self._words(request)
        if self.pause is not None:
            await self.pause()
        ended = self._done(request, words)
        return generation_pb2.GenerateResponse(
            text="".join(words),
            finish_reason=ended.finish_reason,
            matched_stop=ended.matched_stop,
            usage=ended.usage,
            model=ended.model,
        )

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        words = self._words(request)
        try:
            async for word in repeating(words) if self.endless else in_order(words):
                yield generation_pb2.StreamGenerateResponse(delta={"text": word, "token_count": 1})
            yield generation_pb2.StreamGenerateResponse(done=self._done(request, words))
        finally:
            self.closed.set()

    async def ListModels(self, request: Any, context: Any) -> generation_pb2.ListModelsResponse:
        names, token = page(["models/big", "models/small"], request, default=1)
        models = [generation_pb2.Model(name=name, engine="openvino", context_window=2048) for name in names]
        return generation_pb2.ListModelsResponse(models=models, next_page_token=token)

    def _words(self, request: Any) -> list[str]:
        self.requests.append(request)
        if request.model not in {"models/default", "models/small"}:
            raise ModelNotFound(f"no model {request.model!r}")
        said = request.messages[-1].content if request.messages else request.prompt
        return [f"{word.upper()} " for word in said.split()]

    def _done(self, request: Any, words: list[str]) -> generation_pb2.StreamGenerateResponse.Done:
        return generation_pb2.StreamGenerateResponse.Done(
            finish_reason=generation_pb2.FINISH_REASON_LENGTH
            if request.sampling.max_tokens
            else generation_pb2.FINISH_REASON_STOP,
            matched_stop=request.sampling.stop[0] if request.sampling.stop else "",
            usage=generation_pb2.Usage(input_tokens=7, output_tokens=len(words), cached_tokens=3),
            model="models/small",
        )


async def in_order(items: list[Any], then: PenstockError | None = None) -> AsyncIterator[Any]:
    for item in items:
        yield item
    if then is not None:
        raise then


async def repeating(items: list[Any]) -> AsyncIterator[Any]:
    while True:
        for item in items:
            yield item
            await asyncio.sleep(0.005)


def page(names: list[str], request: Any, default: int = 100) -> tuple[list[str], str]:
    start = int(request.page_token or 0)
    end = start + (request.page_size or default)
    return names[start:end], str(end) if end < len(names) else ""


class Services:
    """The server of all four servicers on one port."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        chain = (
            Tracing(self.provider.get_tracer("test")),
            ErrorBoundary(),
            Access(None, {}),
            Admission(settings.concurrency_max),
            Deadline(),
        )
        self.dispatcher = Dispatcher(SERVICES, chain)
        self.flows, self.runs, self.retrieval, self.generation = Flows(), Runs(), Retrieval(), Generation()
        healthy = Health(SERVICES)
        healthy.serve()
        self._server = grpc_server(settings, self.dispatcher, healthy)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> "Services":
        await self._server.start()
        flow_pb2_grpc.add_FlowServiceServicer_to_server(self.flows, self.dispatcher)
        flow_pb2_grpc.add_RunServiceServicer_to_server(self.runs, self.dispatcher)
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(self.retrieval, self.dispatcher)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self.generation, self.dispatcher)
        self.dispatcher.ready = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    settings = ServiceSettings(concurrency_max=8, message_bytes_max=16 * 2**20, deadline_s=5.0)
    async with Services(settings) as started:
        yield started
