"""A gateway as it is served: gRPC and HTTP in front, and behind it real channels to backends that do what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.__main__ import SERVICE
from gateway.settings import GatewaySettings
from penstock.channel import open_channel, rpc_errors
from penstock.dispatcher import Dispatcher
from penstock.flow.v1 import flow_pb2 as pb
from penstock.flow.v1 import flow_pb2_grpc
from penstock.generation.v1 import generation_pb2, generation_pb2_grpc
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from penstock.server import _serve, _Stop
from penstock.settings import ServiceSettings
from penstock.telemetry import Telemetry

BACKENDS = ("penstock.retrieval.v1.RetrievalService", "penstock.generation.v1.GenerationService")


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Finds two chunks, or raises `error`."""

    def __init__(self) -> None:
        self.requests: list[retrieval_pb2.SearchRequest] = []
        self.error: Exception | None = None

    async def Search(self, request: retrieval_pb2.SearchRequest, context: Any) -> retrieval_pb2.SearchResponse:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        chunk = retrieval_pb2.Chunk(id="c1", document_id="d1", text="It was in Denver.")
        chunk.metadata.update({"title": "Denver", "page": 7, "tags": ["a", None]})
        return retrieval_pb2.SearchResponse(hits=[retrieval_pb2.Hit(chunk=chunk, score=0.5)])


class Generation(generation_pb2_grpc.GenerationServiceServicer):
    """Says its `words`; `before` is awaited before each."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.words: tuple[str, ...] = ("Den", "ver")
        self.whole_ends_by = "FINISH_REASON_LENGTH"
        self.time_remaining = 0.0
        self.before: Callable[[int], Awaitable[object]] | None = None
        self.closed = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> generation_pb2.GenerateResponse:
        texts = [message.delta.text async for message in self.StreamGenerate(request, context)]
        usage = generation_pb2.Usage(input_tokens=5, output_tokens=2)
        return generation_pb2.GenerateResponse(text="".join(texts), usage=usage, finish_reason=self.whole_ends_by)

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        self.requests.append(request)
        self.time_remaining = context.time_remaining()
        response = generation_pb2.StreamGenerateResponse
        try:
            for index, text in enumerate(self.words):
                if self.before is not None:
                    await self.before(index)
                yield response(delta=response.Delta(text=text, token_count=1))
            usage = generation_pb2.Usage(input_tokens=5, output_tokens=2)
            yield response(done=response.Done(usage=usage, finish_reason="FINISH_REASON_STOP"))
        finally:
            self.closed.set()


class Stack:
    """The gateway with its addresses, stubs, backends and the spans of all of them."""

    def __init__(self, addresses: dict[str, str], channel: grpc.aio.Channel, http: aiohttp.ClientSession) -> None:
        self.flows = flow_pb2_grpc.FlowServiceStub(channel)
        self.runs = flow_pb2_grpc.RunServiceStub(channel)
        self.target = addresses["grpc"]
        self.url = f"http://{addresses['http']}"
        self.http = http
        self.retrieval = Retrieval()
        self.generation = Generation()
        self.spans = InMemorySpanExporter()

    async def run(self, name: str = "rag", **inputs: Any) -> pb.RunFlowResponse:
        request = pb.RunFlowRequest(name=f"flows/{name}")
        request.inputs.update(inputs or {"question": "Where?"})
        with rpc_errors("gateway"):
            return await self.runs.RunFlow(request, timeout=10)

    def stream(self, name: str = "rag", **inputs: Any) -> Any:
        request = pb.StreamFlowRequest(name=f"flows/{name}")
        request.inputs.update(inputs or {"question": "Where?"})
        return self.runs.StreamFlow(request, timeout=10)


@asynccontextmanager
async def backends(retrieval: Retrieval, generation: Generation, telemetry: Telemetry) -> AsyncIterator[str]:
    settings = ServiceSettings()
    chain = (Tracing(telemetry.tracer("server")), ErrorBoundary(), Admission(100), Deadline())
    dispatcher = Dispatcher(BACKENDS, chain)
    healthy = Health(BACKENDS)
    healthy.serve()
    server = grpc_server(settings, dispatcher, healthy)
    port = server.add_insecure_port("127.0.0.1:0")
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(retrieval, dispatcher)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(generation, dispatcher)
    dispatcher.ready = True
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Stack]:
    provider, spans = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = Telemetry(tracer_provider=provider)
    retrieval, generation = Retrieval(), Generation()
    async with backends(retrieval, generation, telemetry) as target:
        given = {"retrieval_target": target, "generation_target": target, "data_dir": folder / "data"} | settings
        own = GatewaySettings(address_file=folder / "address.json", **given)
        async with _serve(SERVICE, own, telemetry, _Stop()), aiohttp.ClientSession() as http:
            addresses = json.loads((folder / "address.json").read_text())
            channel = open_channel(addresses["grpc"], tracer_provider=provider, message_bytes_max=2**24)
            stack = Stack(addresses, channel, http)
            stack.retrieval, stack.generation, stack.spans = retrieval, generation, spans
            yield stack
            await channel.close()
