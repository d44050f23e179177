"""A real grpc.aio server and channel in one process, over a servicer whose three shapes of method a test scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.channel import open_channel
from penstock.dispatcher import Dispatcher, Interceptor
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import (
    RetrievalServiceServicer,
    RetrievalServiceStub,
    add_RetrievalServiceServicer_to_server,
)
from penstock.settings import ServiceSettings

SERVICE = "penstock.retrieval.v1.RetrievalService"


class ScriptedServicer(RetrievalServiceServicer):
    """Answers with whatever the test put in `taking` (a client's stream) and `answering` (one message)."""

    def __init__(self) -> None:
        self.taking: Callable[[AsyncIterator[Any]], Awaitable[Any]] | None = None
        self.answering: Callable[[Any], Awaitable[Any]] | None = None

    async def IngestStream(self, requests: Any, context: Any) -> pb.IngestStreamResponse:
        return await self.taking(requests)

    async def GetCollection(self, request: Any, context: Any) -> pb.GetCollectionResponse:
        return await self.answering(request) if self.answering else pb.GetCollectionResponse()

    async def DeleteCollection(self, request: Any, context: Any) -> pb.DeleteCollectionResponse:
        return pb.DeleteCollectionResponse()


class Served:
    """The server, its servicer, a stub through our channel, and the spans of both. `more` are interceptors beside ours."""

    def __init__(self, settings: ServiceSettings, more: Sequence[Interceptor] = (), **channel: Any) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.admission = Admission(settings.concurrency_max)
        chain = (Tracing(self.provider.get_tracer("test")), *more, ErrorBoundary(), self.admission, Deadline())
        self.dispatcher = Dispatcher((SERVICE,), chain)
        self.servicer = ScriptedServicer()
        healthy = Health((SERVICE,))
        healthy.serve()
        self.server = grpc_server(settings, self.dispatcher, healthy)
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self._channel = channel

    async def __aenter__(self) -> "Served":
        await self.server.start()
        add_RetrievalServiceServicer_to_server(self.servicer, self.dispatcher)
        self.dispatcher.ready = True
        self.channel = open_channel(self.target, tracer_provider=self.provider, message_bytes_max=64 * 2**20, **self._channel)
        self.stub = RetrievalServiceStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(None)

    async def ended_spans(self, count: int) -> dict[str, Any]:
        """The ended spans by their kind ("SERVER", "CLIENT"), once there are `count`."""
        while len(self.spans.get_finished_spans()) < count:
            await asyncio.sleep(0.01)
        return {span.kind.name: span for span in self.spans.get_finished_spans()}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)
