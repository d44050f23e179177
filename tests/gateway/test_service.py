"""The gateway as it is served: gRPC and HTTP in front, and behind it real channels to backends that do what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from penstock.channel import rpc_errors
from penstock.errors import (
    AlreadyExists,
    BackendUnavailable,
    CollectionNotFound,
    DeadlineExceeded,
    FlowNotFound,
    Internal,
    InvalidArgument,
    InvalidFlow,
    InvalidInputs,
    ModelNotFound,
    Overloaded,
    PenstockError,
    PromptTooLong,
)
from penstock.flow.v1 import flow_pb2 as pb
from penstock.generation.v1 import generation_pb2
from tests.gateway.fakes import ECHO, RAG, document, node
from tests.gateway.serving import Stack, serving


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "rag.json").write_text(RAG)
    async with serving(tmp_path, flows_dir=flows) as started:
        yield started


async def test_a_run_goes_through_both_backends_and_tells_what_they_said(stack: Stack) -> None:
    response = await stack.run()
    assert json_format.MessageToDict(response.outputs) == {"answer": "Denver"}
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 2)
    (source,) = response.sources
    assert (source.chunk_id, source.document_id, source.text, source.score, source.node_id) == (
        "c1",
        "d1",
        "It was in Denver.",
        0.5,
        "docs",
    )
    assert json_format.MessageToDict(source.metadata) == {"title": "Denver", "page": 7, "tags": ["a", None]}
    (search,) = stack.retrieval.requests
    assert (search.collection, search.text, search.top_k) == ("collections/squad", "Where?", 2)
    (asked,) = stack.generation.requests
    assert asked.model == "models/default"
    assert [(message.role, message.content) for message in asked.messages] == [
        (generation_pb2.ROLE_USER, "[1] It was in Denver.\n\nQ: Where?")
    ]
    assert asked.sampling == generation_pb2.Sampling()


async def test_the_parameters_of_a_generate_node_reach_the_service_and_nothing_else_does(stack: Stack) -> None:
    model = node("m", "generate", model="small-1.5", system="Be kind.", max_tokens=9, temperature=0, seed=3, stop=["\n", "END"])
    flow = document(node("q", "input"), model, node("o", "output"), edges=["q > m", "m > o"])
    await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="f", document=flow))
    await stack.run("f", q="hi")
    (asked,) = stack.generation.requests
    assert asked.model == "models/small-1.5"
    assert [(message.role, message.content) for message in asked.messages] == [
        (generation_pb2.ROLE_SYSTEM, "Be kind."),
        (generation_pb2.ROLE_USER, "hi"),
    ]
    assert asked.sampling == generation_pb2.Sampling(max_tokens=9, temperature=0, seed=3, stop=["\n", "END"])
    assert not asked.sampling.HasField("top_p")
    assert asked.sampling.HasField("temperature")


async def test_a_stream_tells_what_happens_in_its_order_and_ends_with_done(stack: Stack) -> None:
    events = [event async for event in stack.stream()]
    assert [event.WhichOneof("event") for event in events] == [
        "node_started", "node_finished",
        "node_started", "sources", "node_finished",
        "node_started", "node_finished",
        "node_started", "token", "token", "node_finished",
        "node_started", "node_finished",
        "done",
    ]  # fmt: skip
    assert [event.token.text for event in events if event.HasField("token")] == ["Den", "ver"]
    done = events[-1].done
    assert json_format.MessageToDict(done.outputs) == {"answer": "Denver"}
    assert len(done.sources) == 1
    assert len(done.trace_id) == 32


async def test_the_same_over_http(stack: Stack) -> None:
    body = {"inputs": {"question": "Where?"}}
    async with stack.http.post(f"{stack.url}/v1/flows/rag:run", json=body) as response:
        answer = await response.json()
    assert (response.status, answer["outputs"]) == (200, {"answer": "Denver"})
    assert answer["sources"][0]["node_id"] == "docs"
    async with stack.http.post(f"{stack.url}/v1/flows/rag:stream", json=body) as response:
        text = await response.text()
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names[0] == "node_started"
    assert names.count("token") == 2
    assert names[-1] == "done"


async def test_flows_are_created_read_listed_and_deleted(stack: Stack) -> None:
    created = (await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="echo", document=ECHO))).flow
    assert (created.name, created.document, list(created.outputs)) == ("flows/echo", ECHO, ["answer"])
    assert [(each.name, each.type, each.required) for each in created.inputs] == [("text", "text", True)]
    again = (
        await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="echo", document=json.dumps(json.loads(ECHO), indent=1)))
    ).flow
    assert again == created
    assert (await stack.flows.GetFlow(pb.GetFlowRequest(name="flows/echo"))).flow == created
    first = await stack.flows.ListFlows(pb.ListFlowsRequest(page_size=1))
    rest = await stack.flows.ListFlows(pb.ListFlowsRequest(page_token=first.next_page_token))
    assert [each.name for each in [*first.flows, *rest.flows]] == ["flows/echo", "flows/rag"]
    assert (first.flows[0].document, rest.next_page_token) == ("", "")
    await stack.flows.DeleteFlow(pb.DeleteFlowRequest(name="flows/echo"))
    with pytest.raises(FlowNotFound):
        await stack.run("echo", text="x")


async def test_replacing_needs_replace_and_is_seen_by_the_next_run(stack: Stack) -> None:
    await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="echo", document=ECHO))
    assert (await stack.run("echo", text="Ab")).outputs["answer"] == "AB"
    lower = ECHO.replace('"upper"', '"lower"')
    with pytest.raises(AlreadyExists), rpc_errors("gateway"):
        await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="echo", document=lower))
    replaced = (await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="echo", document=lower, replace=True))).flow
    response = await stack.run("echo", text="Ab")
    assert (response.outputs["answer"], response.content_hash) == ("ab", replaced.content_hash)


async def test_validating_answers_with_all_faults_and_keeps_nothing(stack: Stack) -> None:
    faulty = document(node("x", "retreive"), node("o", "output"), edges=["ghost > o"])
    response = await stack.flows.ValidateFlow(pb.ValidateFlowRequest(document=faulty))
    assert (response.valid, response.content_hash) == (False, "")
    assert [(fault.node_id, fault.field) for fault in response.violations] == [("x", "type"), ("", "edges[0].source")]
    assert "did you mean 'retrieve'?" in response.violations[0].suggestion
    good = await stack.flows.ValidateFlow(pb.ValidateFlowRequest(document=ECHO))
    assert (good.valid, len(good.violations), len(good.content_hash)) == (True, 0, 64)
    assert len((await stack.flows.ListFlows(pb.ListFlowsRequest())).flows) == 1


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("CreateFlow", pb.CreateFlowRequest(flow_id="bad", document="{"), InvalidFlow),
        ("CreateFlow", pb.CreateFlowRequest(flow_id="bad", document=json.dumps({"nodes": [{"x": 1}] * 256})), InvalidFlow),
        ("CreateFlow", pb.CreateFlowRequest(flow_id="Bad", document=ECHO), InvalidArgument),
        ("GetFlow", pb.GetFlowRequest(name="flows/nowhere"), FlowNotFound),
        ("GetFlow", pb.GetFlowRequest(name="nowhere"), InvalidArgument),
        ("GetFlow", pb.GetFlowRequest(name="flows/a/b"), InvalidArgument),
        ("GetFlow", pb.GetFlowRequest(), InvalidArgument),
        ("DeleteFlow", pb.DeleteFlowRequest(name="flows/nowhere"), FlowNotFound),
        ("ListFlows", pb.ListFlowsRequest(page_size=-1), InvalidArgument),
        ("ListFlows", pb.ListFlowsRequest(page_token="!"), InvalidArgument),
        ("ListFlows", pb.ListFlowsRequest(page_token="YSBi"), InvalidArgument),
    ],
)
async def test_a_bad_request_is_refused_with_its_reason(
    stack: Stack, method: str, request_: Any, error: type[PenstockError]
) -> None:
    with pytest.raises(error), rpc_errors("gateway"):
        await getattr(stack.flows, method)(request_)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [({"question": 7}, InvalidInputs), ({"colour": "red", "question": "x"}, InvalidInputs), ({"text": "x"}, InvalidInputs)],
)
async def test_bad_inputs_are_refused_at_once_and_in_a_stream(
    stack: Stack, inputs: dict[str, Any], error: type[PenstockError]
) -> None:
    with pytest.raises(error):
        await stack.run(**inputs)
    with pytest.raises(error), rpc_errors("gateway"):
        _ = [event async for event in stack.stream(**inputs)]


@pytest.mark.parametrize(
    "raised",
    [
        CollectionNotFound("no collection 'squad'", metadata={"collection": "squad"}),
        Overloaded("the queue is full", retry_after_s=2.0),
        PromptTooLong("9 tokens do not fit 8"),
        ModelNotFound("no model"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_a_backend_refuses_reaches_the_caller_with_the_node(stack: Stack, raised: PenstockError) -> None:
    stack.retrieval.error = raised
    with pytest.raises(type(raised), match=raised.message) as caught:
        await stack.run()
    assert caught.value.metadata == raised.metadata | {"node": "docs", "service": "retrieval"}
    assert caught.value.retry_after_s == raised.retry_after_s


async def test_a_defect_of_a_backend_is_internal_and_says_nothing(stack: Stack) -> None:
    stack.retrieval.error = ZeroDivisionError("hunter2")
    with pytest.raises(Internal) as caught:
        await stack.run()
    assert "hunter2" not in str(caught.value)
    assert (await stack.flows.ValidateFlow(pb.ValidateFlowRequest(document=ECHO))).valid


@pytest.mark.parametrize("dead", ["retrieval", "generation"])
async def test_a_dead_backend_is_named_and_flows_without_it_still_run(tmp_path: Path, dead: str) -> None:
    async with serving(tmp_path, **{f"{dead}_target": "127.0.0.1:1"}) as stack:
        for name, flow in (("rag", RAG), ("echo", ECHO)):
            await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id=name, document=flow))
        with pytest.raises(BackendUnavailable, match=f"the {dead} service cannot be reached") as caught:
            await stack.run()
        assert caught.value.metadata == {"service": dead, "node": "docs" if dead == "retrieval" else "model"}
        with pytest.raises(BackendUnavailable), rpc_errors("gateway"):
            _ = [event async for event in stack.stream()]
        assert (await stack.run("echo", text="a")).outputs["answer"] == "A"


async def test_a_failure_in_mid_stream_is_told_in_the_stream_and_by_its_status(stack: Stack) -> None:
    async def fail_at_the_second(index: int) -> None:
        if index == 1:
            raise Overloaded("no room", retry_after_s=1.0)

    stack.generation.before = fail_at_the_second
    events = []
    with pytest.raises(Overloaded, match="no room") as caught, rpc_errors("gateway"):
        async for event in stack.stream():
            events.append(event)
    assert caught.value.metadata["node"] == "model"
    assert [event.token.text for event in events if event.HasField("token")] == ["Den"]
    assert events[-1].error.message == "no room"


async def test_a_client_that_leaves_stops_the_model(stack: Stack) -> None:
    async def wait_at_the_second(index: int) -> None:
        if index == 1:
            await asyncio.Event().wait()

    stack.generation.before = wait_at_the_second
    call = stack.stream()
    async for event in call:
        if event.HasField("token"):
            break
    call.cancel()
    async with asyncio.timeout(5):
        await stack.generation.closed.wait()


async def test_an_http_client_that_leaves_stops_the_model(stack: Stack) -> None:
    async def wait_at_the_second(index: int) -> None:
        if index == 1:
            await asyncio.Event().wait()

    stack.generation.before = wait_at_the_second
    response = await stack.http.post(f"{stack.url}/v1/flows/rag:stream", json={"inputs": {"question": "x"}})
    async for line in response.content:
        if line.startswith(b"event: token"):
            break
    response.close()
    async with asyncio.timeout(5):
        await stack.generation.closed.wait()


async def test_the_callers_deadline_is_the_backends(stack: Stack) -> None:
    stack.generation.before = lambda _: asyncio.Event().wait()
    request = pb.RunFlowRequest(name="flows/rag")
    request.inputs.update({"question": "x"})
    with pytest.raises(DeadlineExceeded), rpc_errors("gateway"):
        await stack.runs.RunFlow(request, timeout=0.5)
    async with asyncio.timeout(5):
        await stack.generation.closed.wait()
    assert 0 < stack.generation.time_remaining <= 0.5


async def test_one_trace_from_the_caller_to_both_backends(stack: Stack) -> None:
    response = await stack.run()
    spans: dict[tuple[str, str], Any] = {}
    while ("penstock.flow.v1.RunService/RunFlow", "CLIENT") not in spans:  # It ends a little after the answer.
        await asyncio.sleep(0.01)
        spans = {
            (span.name, span.kind.name): span
            for span in stack.spans.get_finished_spans()
            if f"{span.context.trace_id:032x}" == response.trace_id
        }
    names = {span.context.span_id: span.name for span in spans.values()}
    parents = {key: names.get(span.parent.span_id) if span.parent else None for key, span in spans.items()}
    search, generate = "penstock.retrieval.v1.RetrievalService/Search", "penstock.generation.v1.GenerationService/Generate"
    run = "penstock.flow.v1.RunService/RunFlow"
    assert parents[(run, "CLIENT")] is None
    assert parents[(run, "SERVER")] == run
    assert parents[("invoke_workflow rag", "INTERNAL")] == run
    assert parents[("node docs", "INTERNAL")] == "invoke_workflow rag"
    assert parents[(search, "CLIENT")] == "node docs"
    assert parents[(search, "SERVER")] == search
    assert parents[(generate, "CLIENT")] == "node model"
    assert parents[(generate, "SERVER")] == generate


async def test_a_folder_of_flows_with_a_fault_stops_the_start(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "bad.json").write_text(ECHO.replace("upper", "uper"))
    with pytest.raises(PenstockError, match=r"bad\.json:\n  node 'loud' params.operation"):
        async with serving(tmp_path, flows_dir=flows):
            pass


@pytest.mark.parametrize("depth", [40, 90, 400, 1000])
async def test_inputs_nested_deep_are_run_or_refused_but_no_defect(stack: Stack, depth: int) -> None:
    flow = document(node("j", "input", type="json"), node("o", "output"), edges=["j > o"])
    await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="same", document=flow))
    body = '{"inputs": {"j": ' + "[" * depth + "]" * depth + "}}"
    async with stack.http.post(
        f"{stack.url}/v1/flows/same:run", data=body, headers={"content-type": "application/json"}
    ) as response:
        assert response.status in {200, 400}
        assert "INTERNAL" not in await response.text()
