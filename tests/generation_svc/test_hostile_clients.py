"""Clients that send what is no text, or read nothing, against a real server: the next request is served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from generation_svc.servicer import GenerationServicer
from penstock.clients import GenerationClient, Message
from penstock.dispatcher import Dispatcher
from penstock.errors import DeadlineExceeded
from penstock.generation.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.histograms import Histograms
from penstock.interceptors import Deadline, ErrorBoundary, Tracing
from penstock.settings import ServiceSettings
from tests.generation_svc.fakes import FakeEngine

SERVICE = "penstock.generation.v1.GenerationService"
QUESTION = (Message(role="user", content="What is a penstock?"),)


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[str]:
    """A real gRPC server over the core, which ends what nobody reads after a fifth of a second. Yields its address."""
    core = Generation(
        engine=engine,
        admission=Admission(running_max=1, waiting_max=1),
        coalescing=Coalescing(tokens_max=1, delay_max_s=0.001, unread_tokens_max=16, unread_max_s=0.2),
        tracer=NoOpTracer(),
        metrics=GenerationMetrics(NoOpMeter("test"), Histograms()),
    )
    dispatcher = Dispatcher((SERVICE,), (Tracing(NoOpTracer()), ErrorBoundary(), Deadline()))
    add_GenerationServiceServicer_to_server(GenerationServicer(core), dispatcher)
    dispatcher.ready = True
    health = Health((SERVICE,))
    health.serve()
    server = grpc_server(ServiceSettings(), dispatcher, health)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_a_stream_whose_client_reads_nothing_is_ended_and_its_slot_serves_the_next() -> None:
    engine = FakeEngine(words=["x" * 50_000] * 1000, pause_s=0.0005)
    async with serving(engine) as address, GenerationClient(address) as client:
        stalled = client.stream(QUESTION)
        await anext(stalled)
        async with asyncio.timeout(20):
            while engine.running:
                await asyncio.sleep(0.01)
        assert len(engine.requests) == 1
        engine.words = ("A ", "pipe", ".")
        assert (await client.generate(QUESTION, timeout_s=10)).text == "A pipe."
        await stalled.aclose()


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_bytes_that_are_no_text_are_refused_and_the_next_request_is_served(method: str) -> None:
    name, prompt = b"\x0a\x0emodels/default", b"\x1a\x04\xff\xfe\xc3\x28"
    async with serving(FakeEngine()) as address, grpc.aio.insecure_channel(address) as channel:
        kind = channel.unary_unary if method == "Generate" else channel.unary_stream
        call = kind(f"/{SERVICE}/{method}", None, None)(name + prompt, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call if method == "Generate" else [each async for each in call]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with GenerationClient(address) as client:
            assert (await client.generate(QUESTION, timeout_s=10)).text == "A pipe."


async def test_a_client_that_resets_its_connection_frees_the_slot() -> None:
    engine = FakeEngine(endless=True)
    async with serving(engine) as address:
        client = GenerationClient(address)
        answer = client.stream(QUESTION)
        await anext(answer)
        assert engine.running == 1
        await client.aclose()
        async with asyncio.timeout(10):
            while engine.running:
                await asyncio.sleep(0.01)
        engine.endless = False
        async with GenerationClient(address) as other:
            assert (await other.generate(QUESTION, timeout_s=10)).text == "A pipe."
        await answer.aclose()


async def test_a_client_whose_deadline_passes_frees_the_slot() -> None:
    engine = FakeEngine(endless=True)
    async with serving(engine) as address, GenerationClient(address) as client:
        with pytest.raises(DeadlineExceeded):
            await client.generate(QUESTION, timeout_s=0.3)
        async with asyncio.timeout(10):
            while engine.running:
                await asyncio.sleep(0.01)
        engine.endless = False
        assert (await client.generate(QUESTION, timeout_s=10)).text == "A pipe."
