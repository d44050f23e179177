"""The client of the gateway, over a real server and channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from penstock.clients import Done, FlowInput, NodeFinished, NodeStarted, Penstock, RunResult, Source, Sources, Token, Usage
from penstock.clients.connection import Client
from penstock.errors import (
    AlreadyExists,
    BackendUnavailable,
    DeadlineExceeded,
    FlowNotFound,
    InvalidArgument,
    InvalidFlow,
    Overloaded,
    Violation,
)
from penstock.flow.v1 import flow_pb2 as pb

SOURCE = pb.Source(chunk_id="c1", document_id="d1", text="a passage", score=0.5, metadata={"page": 3}, node_id="find")
DONE = pb.StreamFlowResponse(
    done=pb.RunFlowResponse(
        outputs={"answer": "a tower", "tries": 2, "ratio": 0.25},
        sources=[SOURCE],
        usage=pb.Usage(input_tokens=11, output_tokens=2),
        content_hash="ab",
        trace_id="cd",
    )
)
RESULT = RunResult(
    outputs={"answer": "a tower", "tries": 2, "ratio": 0.25},
    sources=(
        Source(chunk_id="c1", document_id="d1", text="a passage", score=0.5, metadata={"page": 3}, node_id="find"),
    ),
    usage=Usage(input_tokens=11, output_tokens=2),
    content_hash="ab",
    trace_id="cd",
)  # fmt: skip


def token(text: str) -> pb.StreamFlowResponse:
    return pb.StreamFlowResponse(token=pb.StreamFlowResponse.Token(node_id="write", text=text))


async def tokens_for_ever() -> AsyncIterator[pb.StreamFlowResponse]:
    while True:
        yield token("x")
        await asyncio.sleep(0.005)


async def streaming(*events: Any, then: Exception | None = None) -> AsyncIterator[Any]:
    for event in events:
        yield event
    if then is not None:
        raise then


@pytest.fixture
async def client(services: Any) -> AsyncIterator[Penstock]:
    async with Penstock(services.target) as opened:
        yield opened


async def test_a_run_returns_outputs_sources_usage_version_and_trace(services: Any, client: Penstock) -> None:
    services.runs.stream = lambda: streaming(token("a "), DONE)
    assert await client.run("rag", {"question": "what?", "limits": {"words": [1, 2.5, None]}}) == RESULT
    assert services.runs.requests[0].name == "flows/rag"
    assert services.runs.requests[0].inputs["limits"]["words"][1] == 2.5


async def test_a_stream_gives_every_event_as_its_own_type(services: Any, client: Penstock) -> None:
    services.runs.stream = lambda: streaming(
        pb.StreamFlowResponse(node_started={"node_id": "find", "node_type": "retrieve"}),
        pb.StreamFlowResponse(sources={"node_id": "find", "sources": [SOURCE]}),
        pb.StreamFlowResponse(node_finished={"node_id": "find", "node_type": "retrieve", "duration_s": 0.25}),
        pb.StreamFlowResponse(),  # An event of a newer gateway.
        token("a "),
        DONE,
    )
    assert [event async for event in client.stream("flows/rag", {})] == [
        NodeStarted(node_id="find", node_type="retrieve"),
        Sources(node_id="find", sources=RESULT.sources),
        NodeFinished(node_id="find", node_type="retrieve", duration_s=0.25),
        Token(node_id="write", text="a "),
        Done(result=RESULT),
    ]


async def test_a_stream_that_fails_midway_raises_what_the_server_raised(services: Any, client: Penstock) -> None:
    services.runs.stream = lambda: streaming(token("a"), then=Overloaded("full", metadata={"node": "write"}, retry_after_s=2))
    received = []
    with pytest.raises(Overloaded, match="full") as caught:
        async for event in client.stream("rag", {}):
            received.append(event)
    assert received == [Token(node_id="write", text="a")]
    assert caught.value.metadata == {"node": "write", "service": "gateway"}
    assert caught.value.retry_after_s == 2


async def test_the_span_of_a_stream_that_failed_midway_ends_with_its_status(services: Any) -> None:
    services.runs.stream = lambda: streaming(token("a"), then=Overloaded("full"))
    async with Penstock(services.target, tracer_provider=services.provider) as client:
        with pytest.raises(Overloaded):
            async for _ in client.stream("rag", {}):
                pass
        while len(services.spans.get_finished_spans()) < 2:
            await asyncio.sleep(0.01)
    statuses = {span.kind: span.attributes["rpc.response.status_code"] for span in services.spans.get_finished_spans()}
    assert statuses == {SpanKind.CLIENT: "RESOURCE_EXHAUSTED", SpanKind.SERVER: "RESOURCE_EXHAUSTED"}


async def test_a_failing_status_raises_the_class_that_the_server_raised(client: Penstock) -> None:
    with pytest.raises(FlowNotFound) as caught:
        await client.get_flow("nowhere")
    assert caught.value.metadata == {"flow": "flows/nowhere", "service": "gateway"}


async def test_breaking_out_of_a_stream_closes_the_servers_handler(services: Any, client: Penstock) -> None:
    services.runs.stream = tokens_for_ever
    async for _ in client.stream("rag", {}):
        break
    await asyncio.wait_for(services.runs.closed.wait(), 5)


async def test_cancelling_the_task_that_reads_a_stream_closes_the_servers_handler(services: Any, client: Penstock) -> None:
    services.runs.stream = tokens_for_ever

    async def read() -> None:
        async with aclosing(client.stream("rag", {})) as events:
            async for _ in events:
                pass

    reading = asyncio.create_task(read())
    while not services.runs.requests:
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.wait_for(services.runs.closed.wait(), 5)


async def test_a_call_ends_with_its_deadline(services: Any, client: Penstock) -> None:
    services.runs.stream = tokens_for_ever
    with pytest.raises(DeadlineExceeded):
        await client.run("rag", {}, timeout_s=0.2)
    with pytest.raises(DeadlineExceeded):
        async for _ in client.stream("rag", {}, timeout_s=0.2):
            pass


async def test_inputs_that_json_cannot_say_are_refused_before_the_call(services: Any, client: Penstock) -> None:
    for value in (b"bytes", object(), {1: "one"}, 10**400):
        with pytest.raises(InvalidArgument, match="the inputs must be what JSON can say"):
            await client.run("rag", {"question": value})
    assert services.runs.requests == []


async def test_a_kept_flow_comes_back_with_its_document(client: Penstock) -> None:
    created = await client.create_flow("rag", {"nodes": [], "edges": []})
    assert created == await client.get_flow("flows/rag")
    assert created.document == {"nodes": [], "edges": []}
    assert created.inputs == (FlowInput(name="question", type="text", required=True),)
    assert (created.name, created.outputs) == ("rag", ("answer",))
    assert created.create_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def test_a_taken_flow_id_is_an_error_unless_it_may_be_replaced(client: Penstock) -> None:
    await client.create_flow("rag", '{"nodes": []}')
    with pytest.raises(AlreadyExists):
        await client.create_flow("rag", '{"edges": []}')
    assert (await client.create_flow("rag", '{"edges": []}', replace=True)).document == {"edges": []}


async def test_an_invalid_document_raises_with_its_violations(client: Penstock) -> None:
    with pytest.raises(InvalidFlow) as caught:
        await client.create_flow("rag", "[]")
    assert "not an object (begin with a brace)" in caught.value.violations[0].message
    with pytest.raises(InvalidFlow, match="what JSON can say"):
        await client.create_flow("rag", {"nodes": object()})


async def test_validation_returns_the_violations_instead_of_raising(client: Penstock) -> None:
    good, bad = await client.validate_flow({"nodes": []}), await client.validate_flow("[]")
    assert (good.valid, good.violations, good.content_hash) == (True, (), "ab")
    fault = Violation(node_id="ask", field="params.top_k", message="too large", suggestion="at most 1000")
    assert (bad.valid, bad.violations) == (False, (fault,))


async def test_listing_reads_one_page_after_the_other_and_only_as_many_as_are_asked_for(
    services: Any, client: Penstock
) -> None:
    for number in range(5):
        await client.create_flow(f"flow{number}", "{}")
    listed = [flow async for flow in client.list_flows(page_size=2)]
    assert [flow.name for flow in listed] == [f"flow{number}" for number in range(5)]
    assert all(flow.document is None for flow in listed)
    assert services.flows.pages_read == 3
    async for _ in client.list_flows(page_size=2):
        break
    assert services.flows.pages_read == 4


async def test_a_deleted_flow_is_gone(client: Penstock) -> None:
    await client.create_flow("rag", "{}")
    await client.delete_flow("rag")
    with pytest.raises(FlowNotFound):
        await client.delete_flow("rag")


async def test_a_gateway_that_is_not_there_is_named() -> None:
    async with Penstock("127.0.0.1:1") as client:
        with pytest.raises(BackendUnavailable, match="the gateway service cannot be reached"):
            await client.run("rag", {}, timeout_s=5)


async def test_a_client_that_was_never_used_closes_without_having_connected() -> None:
    client: Client = Penstock("127.0.0.1:1")
    async with client:
        pass
    await client.aclose()
