"""A real grpc.aio server and channel in one process, over a servicer that does what each test needs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock.channel import open_channel, rpc_errors
from penstock.deadline import remaining_s
from penstock.dispatcher import Dispatcher
from penstock.encoded import Encoded
from penstock.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    Internal,
    InvalidInputs,
    MalformedRequest,
    MessageTooLarge,
    ModelNotFound,
    NotReady,
    Overloaded,
    PenstockError,
    Violation,
)
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1.generation_pb2_grpc import (
    GenerationServiceServicer,
    GenerationServiceStub,
    add_GenerationServiceServicer_to_server,
)
from penstock.grpc_front import _guarded, grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.settings import ServiceSettings
from penstock.wire import from_status

SERVICE = "penstock.generation.v1.GenerationService"


class ScriptedServicer(GenerationServiceServicer):
    """Answers with whatever the test put in `unary` and `stream`."""

    def __init__(self) -> None:
        self.unary: Callable[[], Awaitable[pb.GenerateResponse]] | None = None
        self.stream: Callable[[], AsyncIterator[pb.StreamGenerateResponse]] | None = None
        self.closed = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> pb.GenerateResponse:
        return await self.unary()

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
        try:
            async for message in self.stream():
                yield message
        finally:
            self.closed.set()


class Running:
    """The server, its servicer, a stub through our channel, and the spans of both."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        tracer = self.provider.get_tracer("test")
        chain = (Tracing(tracer), ErrorBoundary(), Admission(settings.concurrency_max), Deadline())
        self.dispatcher = Dispatcher((SERVICE,), chain)
        self.servicer = ScriptedServicer()
        self.health = Health((SERVICE,))
        self.server = grpc_server(settings, self.dispatcher, self.health)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self) -> "Running":
        await self.server.start()
        add_GenerationServiceServicer_to_server(self.servicer, self.dispatcher)
        self.dispatcher.ready = True
        self.health.serve()
        self.channel = open_channel(f"127.0.0.1:{self.port}", tracer_provider=self.provider, message_bytes_max=64 * 2**20)
        self.stub = GenerationServiceStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(None)

    async def ended_spans(self, count: int) -> list[ReadableSpan]:
        while len(self.spans.get_finished_spans()) < count:
            await asyncio.sleep(0.01)
        return list(self.spans.get_finished_spans())


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with Running(ServiceSettings(concurrency_max=2, message_bytes_max=4096, deadline_s=5.0)) as started:
        yield started


async def deltas(*texts: str, then: PenstockError | None = None) -> AsyncIterator[pb.StreamGenerateResponse]:
    for text in texts:
        yield pb.StreamGenerateResponse(delta=pb.StreamGenerateResponse.Delta(text=text))
    if then is not None:
        raise then


async def test_an_error_of_ours_reaches_the_client_as_the_same_class(running: Running) -> None:
    async def refuse() -> pb.GenerateResponse:
        raise ModelNotFound("no model 'x'; there is 'y'", metadata={"model": "x"})

    running.servicer.unary = refuse
    with pytest.raises(ModelNotFound, match="no model 'x'") as caught, rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=5)
    assert caught.value.metadata == {"model": "x", "service": "generation"}


@pytest.mark.parametrize("letter", ["n", "é", "😀"])
async def test_an_error_that_a_caller_made_long_still_reaches_it_with_its_reason(running: Running, letter: str) -> None:
    name = letter * 20_000
    faults = [Violation(field=f"inputs.{name}", message=f"there is no input {name}") for _ in range(500)]

    async def refuse() -> pb.GenerateResponse:
        raise InvalidInputs(f"there is no input {name}", metadata={"name": name}, violations=faults)

    running.servicer.unary = refuse
    with pytest.raises(InvalidInputs, match="there is no input") as caught, rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=5)
    told = len(caught.value.violations)
    assert told >= 1
    assert caught.value.metadata["violations_left_out"] == str(500 - told)


async def test_an_unknown_exception_says_nothing_outside_and_everything_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down() -> pb.GenerateResponse:
        raise ZeroDivisionError("password is hunter2")

    running.servicer.unary = break_down
    with pytest.raises(Internal) as caught, rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=5)
    assert "hunter2" not in caught.value.message
    assert "hunter2" in caplog.text


async def test_a_stream_that_fails_midway_says_so_in_band_and_in_its_status(running: Running) -> None:
    running.servicer.stream = lambda: deltas("a", then=Overloaded("full", retry_after_s=2))
    received = []
    with pytest.raises(Overloaded, match="full"), rpc_errors("generation"):
        async for message in running.stub.StreamGenerate(pb.StreamGenerateRequest(), timeout=5):
            received.append(message)
    assert received[0].delta.text == "a"
    assert isinstance(from_status(received[1].error), Overloaded)


async def test_a_stream_that_fails_at_once_has_its_status_alone(running: Running) -> None:
    running.servicer.stream = lambda: deltas(then=ModelNotFound("none"))
    with pytest.raises(ModelNotFound), rpc_errors("generation"):
        async for _ in running.stub.StreamGenerate(pb.StreamGenerateRequest(), timeout=5):
            pytest.fail("nothing was to come")


async def test_a_client_that_leaves_closes_the_handler(running: Running) -> None:
    async def endless() -> AsyncIterator[pb.StreamGenerateResponse]:
        while True:
            yield pb.StreamGenerateResponse(delta=pb.StreamGenerateResponse.Delta(text="x"))
            await asyncio.sleep(0.01)

    running.servicer.stream = endless
    call = running.stub.StreamGenerate(pb.StreamGenerateRequest(), timeout=5)
    await anext(aiter(call))
    call.cancel()
    await asyncio.wait_for(running.servicer.closed.wait(), 5)


async def test_a_request_over_the_limit_is_refused_with_a_reason(running: Running) -> None:
    with pytest.raises(MessageTooLarge) as caught, rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(prompt="x" * 5000), timeout=5)
    assert caught.value.metadata["bytes_max"] == "4096"


async def test_a_request_far_over_the_limit_is_refused_by_grpc_itself(running: Running) -> None:
    with pytest.raises(MessageTooLarge), rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(prompt="x" * 50_000), timeout=5)


async def test_bytes_that_are_no_message_are_refused_with_a_reason(running: Running) -> None:
    call = running.channel.unary_unary(f"/{SERVICE}/Generate")
    with pytest.raises(MalformedRequest), rpc_errors("generation"):
        await call(b"\xff\xff\xff", timeout=5)


def test_a_request_nested_deeper_than_protobuf_goes_is_told_so() -> None:
    nested = b""
    for _ in range(60):  # A list in a value in a list: two messages a round.
        value = b"\x32" + _length(nested) + nested
        nested = b"\x0a" + _length(value) + value
    refused = _guarded(struct_pb2.ListValue.FromString, 10_000)(nested)
    assert isinstance(refused, MalformedRequest)
    assert "nested too deeply" in refused.message


def _length(content: bytes) -> bytes:
    """A length as protobuf writes it, up to 16383."""
    return bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])


async def test_calls_over_the_concurrency_limit_are_refused_at_once(running: Running) -> None:
    release = asyncio.Event()

    async def wait() -> pb.GenerateResponse:
        await release.wait()
        return pb.GenerateResponse(text="done")

    running.servicer.unary = wait
    held = [asyncio.ensure_future(running.stub.Generate(pb.GenerateRequest(), timeout=5)) for _ in range(2)]
    await asyncio.sleep(0.2)
    with pytest.raises(Overloaded) as caught, rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=5)
    assert caught.value.retry_after_s is not None
    release.set()
    assert [answer.text for answer in await asyncio.gather(*held)] == ["done", "done"]


async def test_the_callers_deadline_is_known_inside_and_ends_the_call(running: Running) -> None:
    seen = []

    async def sleep() -> pb.GenerateResponse:
        seen.append(remaining_s(60))
        await asyncio.sleep(60)
        return pb.GenerateResponse()

    running.servicer.unary = sleep
    with pytest.raises(DeadlineExceeded), rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=0.3)
    assert 0 < seen[0] <= 0.3


async def test_before_it_is_ready_and_while_it_leaves_a_service_refuses_as_not_ready(running: Running) -> None:
    running.dispatcher.ready = False
    with pytest.raises(NotReady), rpc_errors("generation"):
        await running.stub.Generate(pb.GenerateRequest(), timeout=5)


async def test_a_service_that_is_not_there_is_named(running: Running) -> None:
    async with open_channel("127.0.0.1:1", tracer_provider=running.provider, message_bytes_max=4096) as channel:
        with pytest.raises(BackendUnavailable, match="the generation service cannot be reached") as caught:
            with rpc_errors("generation"):
                await GenerationServiceStub(channel).Generate(pb.GenerateRequest(), timeout=5)
    assert caught.value.metadata == {"service": "generation"}


async def test_the_servers_span_is_a_child_of_the_clients(running: Running) -> None:
    async def answer() -> pb.GenerateResponse:
        return pb.GenerateResponse(text="ok")

    running.servicer.unary = answer
    await running.stub.Generate(pb.GenerateRequest(), timeout=5)
    server, client = sorted(await running.ended_spans(2), key=lambda span: span.kind is SpanKind.CLIENT)
    assert server.parent.span_id == client.context.span_id
    assert server.name == client.name == f"{SERVICE}/Generate"
    assert server.attributes["rpc.response.status_code"] == client.attributes["rpc.response.status_code"] == "OK"


async def test_both_spans_of_a_cancelled_stream_end_as_cancelled_and_not_as_faults(running: Running) -> None:
    async def first_then_nothing() -> AsyncIterator[pb.StreamGenerateResponse]:
        yield pb.StreamGenerateResponse(delta=pb.StreamGenerateResponse.Delta(text="x"))
        await asyncio.sleep(60)

    running.servicer.stream = first_then_nothing
    call = running.stub.StreamGenerate(pb.StreamGenerateRequest(), timeout=5)
    await anext(aiter(call))
    call.cancel()
    spans = await running.ended_spans(2)
    assert [span.attributes["rpc.response.status_code"] for span in spans] == ["CANCELLED", "CANCELLED"]
    assert all(span.status.status_code is StatusCode.UNSET for span in spans)
    server, client = sorted(spans, key=lambda span: span.kind is SpanKind.CLIENT)
    assert server.parent.span_id == client.context.span_id


async def test_a_servers_fault_marks_both_spans_a_callers_fault_only_the_clients(running: Running) -> None:
    async def break_down() -> pb.GenerateResponse:
        raise ZeroDivisionError

    async def refuse() -> pb.GenerateResponse:
        raise ModelNotFound("none")

    outcomes = []
    for behaviour in (break_down, refuse):
        running.servicer.unary = behaviour
        running.spans.clear()
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Generate(pb.GenerateRequest(), timeout=5)
        server, client = sorted(await running.ended_spans(2), key=lambda span: span.kind is SpanKind.CLIENT)
        outcomes.append((server.status.status_code, client.status.status_code, client.attributes["penstock.error.reason"]))
    assert outcomes == [
        (StatusCode.ERROR, StatusCode.ERROR, "INTERNAL"),
        (StatusCode.UNSET, StatusCode.ERROR, "MODEL_NOT_FOUND"),
    ]


async def test_health_and_reflection_answer(running: Running) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def reflected() -> tuple[set[str], descriptor_pb2.FileDescriptorProto]:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as sync_channel:
            database = ProtoReflectionDescriptorDatabase(sync_channel)
            return set(database.get_services()), database.FindFileContainingSymbol(SERVICE)

    services, file = await asyncio.to_thread(reflected)
    assert SERVICE in services
    assert file.package == "penstock.generation.v1"


async def test_an_answer_that_is_bytes_already_is_sent_as_it_is(running: Running) -> None:
    answer = pb.GenerateResponse(text="Oslo")

    async def encoded() -> Any:
        return Encoded(pb.GenerateResponse, answer.SerializeToString())

    running.servicer.unary = encoded
    assert await running.stub.Generate(pb.GenerateRequest(), timeout=5) == answer
