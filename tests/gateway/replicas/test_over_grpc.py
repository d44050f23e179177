"""Replicas behind real servers and channels: what gRPC makes of a replica that drains, dies, hangs, or is new."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.backends import Delta, Finish, GenerateRequest
from gateway.clients import GrpcGenerator
from gateway.replicas.generator import ReplicatedGenerator, replicated
from gateway.replicas.replica import Replica, ReplicaLimits
from penstock.addresses import parse_target
from penstock.channel import open_channel
from penstock.dispatcher import Dispatcher
from penstock.errors import NotReady, Unavailable
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1 import generation_pb2_grpc
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary
from penstock.settings import ServiceSettings
from tests.gateway.replicas.fakes import rag, statistics

SERVICE = "penstock.generation.v1.GenerationService"
REQUEST = GenerateRequest(model="default", prompt=rag(1))


class Servicer(generation_pb2_grpc.GenerationServiceServicer):
    """Streams "one", waits for `more`, and streams "two"."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.more = asyncio.Event()
        self.load = pb.GetLoadResponse(running_max=8, waiting_max=8)

    async def Generate(self, request: Any, context: Any) -> pb.GenerateResponse:
        self.count += 1
        if self.error is not None:
            raise self.error
        return pb.GenerateResponse(text="one two")

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
        self.count += 1
        response = pb.StreamGenerateResponse
        yield response(delta=response.Delta(text="one"))
        await self.more.wait()
        yield response(delta=response.Delta(text="two"))
        yield response(done=response.Done(usage=pb.Usage(input_tokens=9, cached_tokens=4)))

    async def GetLoad(self, request: Any, context: Any) -> pb.GetLoadResponse:
        return self.load


@dataclass
class Served:
    servicer: Servicer
    health: Health
    dispatcher: Dispatcher
    server: Any
    address: str

    def drain(self) -> None:
        """As a service begins to leave: it says so, and refuses what is new."""
        self.dispatcher.ready = False
        self.health.leave()


@asynccontextmanager
async def served(count: int) -> AsyncIterator[list[Served]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            dispatcher, servicer = Dispatcher((SERVICE,), (ErrorBoundary(), Admission(100), Deadline())), Servicer()
            generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, dispatcher)
            health = Health((SERVICE,))
            server = grpc_server(ServiceSettings(), dispatcher, health)
            port = server.add_insecure_port("127.0.0.1:0")
            dispatcher.ready = True
            health.serve()
            await server.start()
            stack.push_async_callback(server.stop, None)
            found.append(Served(servicer, health, dispatcher, server, f"127.0.0.1:{port}"))
        yield found


@asynccontextmanager
async def over(*replicas: Served, provider: TracerProvider | None = None) -> AsyncIterator[ReplicatedGenerator]:
    """A generator over these, all of which are ready."""

    def connect(address: str) -> GrpcGenerator:
        channel = open_channel(address, tracer_provider=provider or TracerProvider(), message_bytes_max=2**24, retries=False)
        return GrpcGenerator(channel, timeout_s=10)

    addresses = parse_target(",".join(each.address for each in replicas))
    limits = ReplicaLimits(report_interval_s=0.02)
    async with replicated(addresses, connect, limits=limits, statistics=statistics()) as generator:
        await until(lambda: all(replica.ready for replica in generator._replicas.all()))
        yield generator


def of(generator: ReplicatedGenerator, there: Served) -> Replica:
    return next(replica for replica in generator._replicas.all() if replica.address == there.address)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.005)


async def test_a_draining_replica_finishes_its_streams_and_gets_nothing_new() -> None:
    async with served(2) as replicas, over(*replicas) as generator:
        stream = generator.stream(REQUEST)
        assert await anext(stream) == Delta(text="one")
        home, other = sorted(replicas, key=lambda each: -each.servicer.count)
        home.drain()
        await until(lambda: not of(generator, home).ready)
        for _ in range(10):
            assert (await generator.generate(REQUEST)).text == "one two"
        assert (home.servicer.count, other.servicer.count) == (1, 10)
        home.servicer.more.set()
        more, finish = [part async for part in stream]
        assert more == Delta(text="two")
        assert isinstance(finish, Finish)
        assert (finish.input_tokens, finish.cached_tokens) == (9, 4)


async def test_a_replica_that_refuses_before_its_health_is_known_loses_nothing() -> None:
    async with served(2) as replicas, over(*replicas) as generator:
        await generator.generate(REQUEST)
        (home,) = [each for each in replicas if each.servicer.count]
        home.servicer.error = NotReady("draining")
        assert (await generator.generate(REQUEST)).text == "one two"


async def test_a_replica_that_dies_loses_only_streams_that_have_begun() -> None:
    async with served(2) as replicas, over(*replicas) as generator:
        stream = generator.stream(REQUEST)
        assert await anext(stream) == Delta(text="one")
        (home,) = [each for each in replicas if each.servicer.count]
        await home.server.stop(0)
        with pytest.raises(Unavailable):
            await anext(stream)
        await asyncio.gather(*(generator.generate(REQUEST) for _ in range(20)))
        assert not of(generator, home).ready


async def test_a_version_that_does_not_say_what_it_works_on_is_asked_all_the_same() -> None:
    async with served(2) as replicas, over(*replicas) as generator:
        replicas[0].servicer.GetLoad = generation_pb2_grpc.GenerationServiceServicer().GetLoad  # type: ignore[method-assign]
        replicas[1].servicer.load = pb.GetLoadResponse(running=3, waiting=1, running_max=8, waiting_max=8)
        await until(lambda: of(generator, replicas[1]).load == 4)
        assert of(generator, replicas[0]).load == 0
        assert of(generator, replicas[1]).others == 4
        assert (await generator.generate(GenerateRequest(model="m", prompt="short"))).text == "one two"
        assert replicas[0].servicer.count == 1, "the one with less to do"


async def test_asking_for_loads_makes_no_traces() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with served(2) as replicas, over(*replicas, provider=provider) as generator:
        replicas[0].servicer.load = pb.GetLoadResponse(running=2, running_max=8)
        await until(lambda: of(generator, replicas[0]).load == 2)
        await generator.generate(REQUEST)
    await until(lambda: bool(spans.get_finished_spans()))
    assert {span.name for span in spans.get_finished_spans()} == {f"{SERVICE}/Generate"}
