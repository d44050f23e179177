"""A channel that finds a link by itself, and goes over gRPC while there is none."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.channel import rpc_errors
from penstock.dispatcher import Dispatcher
from penstock.errors import BackendUnavailable, FlowNotFound
from penstock.flow.v1 import flow_pb2, flow_pb2_grpc
from penstock.fronts import Fronts
from penstock.interceptors import Deadline, ErrorBoundary, Tracing
from penstock.link.channel import open_linked_channel
from penstock.link.server import LinkContext
from penstock.settings import ServiceSettings

SERVICE = "penstock.flow.v1.RunService"


class Counting(flow_pb2_grpc.RunServiceServicer):
    """Counts on which way calls came."""

    def __init__(self) -> None:
        self.ways: list[str] = []

    async def RunFlow(self, request, context):
        self.ways.append("link" if isinstance(context, LinkContext) else "grpc")
        if request.name == "flows/none":
            raise FlowNotFound("there is none")
        return flow_pb2.RunFlowResponse(trace_id=context.metadata().get("authorization", ""))

    async def StreamFlow(self, request, context):
        self.ways.append("link" if isinstance(context, LinkContext) else "grpc")
        yield flow_pb2.StreamFlowResponse(token=flow_pb2.StreamFlowResponse.Token(text="a"))


class Served:
    def __init__(self, http_address: str = "127.0.0.1:0") -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.servicer = Counting()
        self.dispatcher = Dispatcher((SERVICE,), (Tracing(self.provider.get_tracer("t")), ErrorBoundary(), Deadline()))
        flow_pb2_grpc.add_RunServiceServicer_to_server(self.servicer, self.dispatcher)
        settings = ServiceSettings(http_address=http_address, drain_grace_s=1)
        self.fronts = Fronts(
            type("S", (), {"name": "test", "rpc_services": (SERVICE,)})(), settings, self.dispatcher, shared=False
        )

    def channel(self):
        return open_linked_channel(
            self.fronts.grpc_address, tracer_provider=self.provider, message_bytes_max=2**20, retries=False, api_key="k"
        )


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    serving = Served()
    async with serving.fronts.open(None):
        serving.fronts.serve()
        yield serving


async def over_a_link(served: Served, stub) -> None:
    """Calls until one went over a link."""
    async with asyncio.timeout(10):
        while "link" not in served.servicer.ways:
            await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/a"), timeout=5)
            await asyncio.sleep(0.01)


async def test_the_first_call_goes_over_grpc_and_later_ones_over_the_link_that_was_found(served: Served) -> None:
    channel = served.channel()
    stub = flow_pb2_grpc.RunServiceStub(channel)
    answer = await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/a"), timeout=5)
    assert (answer.trace_id, served.servicer.ways) == ("Bearer k", ["grpc"])
    await over_a_link(served, stub)
    served.servicer.ways.clear()
    answer = await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/a"), timeout=5)
    assert [message.token.text async for message in stub.StreamFlow(flow_pb2.StreamFlowRequest(name="x"), timeout=5)] == ["a"]
    assert (answer.trace_id, served.servicer.ways) == ("Bearer k", ["link", "link"])
    await channel.close()


async def test_a_trace_goes_on_over_a_link(served: Served) -> None:
    channel = served.channel()
    stub = flow_pb2_grpc.RunServiceStub(channel)
    await over_a_link(served, stub)
    served.spans.clear()
    with served.provider.get_tracer("t").start_as_current_span("outer"):
        with pytest.raises(FlowNotFound) as failed, rpc_errors("flow"):
            await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/none"), timeout=5)
    assert failed.value.metadata["service"] == "flow"
    client, server, outer = sorted(
        served.spans.get_finished_spans(), key=lambda span: ("CLIENT", "SERVER", "INTERNAL").index(span.kind.name)
    )
    assert server.parent.span_id == client.context.span_id
    assert client.parent.span_id == outer.context.span_id
    assert client.attributes["rpc.response.status_code"] == "NOT_FOUND"
    await channel.close()


async def test_a_service_without_http_is_called_over_grpc() -> None:
    serving = Served(http_address="")
    async with serving.fronts.open(None):
        serving.fronts.serve()
        channel = serving.channel()
        stub = flow_pb2_grpc.RunServiceStub(channel)
        for _ in range(10):
            await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/a"), timeout=5)
            await asyncio.sleep(0.02)
        assert set(serving.servicer.ways) == {"grpc"}
        await channel.close()


async def test_calls_of_a_service_that_is_gone_are_unavailable_and_of_one_that_is_back_answered() -> None:
    serving = Served()
    async with serving.fronts.open(None):
        serving.fronts.serve()
        channel = serving.channel()
        stub = flow_pb2_grpc.RunServiceStub(channel)
        await over_a_link(serving, stub)
    with pytest.raises(BackendUnavailable, match="the flow service cannot be reached"), rpc_errors("flow"):
        await stub.RunFlow(flow_pb2.RunFlowRequest(name="flows/a"), timeout=5)
    await channel.close()
