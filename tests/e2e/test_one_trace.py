"""One request is one trace, from the edge to the engine, however it ends."""

import json
import secrets
from collections.abc import Sequence

import pytest

from penstock.cli.otlp_receiver import Span
from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

SERVICES = ("gateway", "retrieval", "generation")
QUESTION = "How many tackles did Luke Kuechly register?"


def traceparent() -> tuple[str, str, dict[str, str]]:
    """A trace that began at the caller: its id, the caller's span id, the header."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01"}


def named(spans: Sequence[Span], service: str, beginning: str, kind: str | None = None) -> Span:
    found = [s for s in spans if s.service == service and s.name.startswith(beginning) and kind in (None, s.kind)]
    assert len(found) == 1, f"{service} {beginning}: {[(span.service, span.kind, span.name) for span in spans]}"
    return found[0]


def node(spans: Sequence[Span], node_type: str) -> Span:
    (found,) = [span for span in spans if span.attributes.get("penstock.node.type") == node_type]
    return found


async def test_a_streamed_request_over_http_is_one_trace_with_the_right_parents(stack: Stack) -> None:
    trace_id, caller_span, headers = traceparent()
    async with stack.http.post(
        stack.url("/v1/flows/rag:stream"), json={"inputs": {"question": QUESTION}}, headers=headers
    ) as response:
        assert response.status == 200
        body = await response.text()
    assert f'"trace_id":"{trace_id}"' in body.replace(" ", "")

    spans = await stack.traces.whole_trace(trace_id, services=SERVICES, timeout_s=20)
    edge = named(spans, "gateway", "penstock.flow.v1.RunService/StreamFlow", "SERVER")
    assert edge.parent_id == caller_span
    workflow = named(spans, "gateway", "invoke_workflow")
    assert workflow.parent_id == edge.span_id

    for node_type, backend, method in (
        ("retrieve", "retrieval", "penstock.retrieval.v1.RetrievalService/Search"),
        ("generate", "generation", "penstock.generation.v1.GenerationService/StreamGenerate"),
    ):
        in_flow = node(spans, node_type)
        client = named(spans, "gateway", method, "CLIENT")
        server = named(spans, backend, method, "SERVER")
        assert in_flow.parent_id == workflow.span_id
        assert client.parent_id == in_flow.span_id
        assert server.parent_id == client.span_id

    search = named(spans, "retrieval", "retrieval ")
    assert search.parent_id == named(spans, "retrieval", "penstock.retrieval", "SERVER").span_id
    assert named(spans, "retrieval", "embeddings").parent_id == search.span_id
    fan_out, shard = named(spans, "retrieval", "fan-out"), named(spans, "retrieval", "shard call")
    assert fan_out.parent_id == search.span_id
    assert shard.parent_id == fan_out.span_id
    assert named(spans, "retrieval", "faiss.search").parent_id == shard.span_id
    chat = named(spans, "generation", "chat ")
    assert chat.parent_id == named(spans, "generation", "penstock.generation", "SERVER").span_id
    assert {named(spans, "generation", name).parent_id for name in ("queue", "prefill", "decode")} == {chat.span_id}
    assert not any(span.failed for span in spans)


async def test_spans_carry_the_genai_attributes(stack: Stack) -> None:
    trace_id, _, headers = traceparent()
    async with stack.http.post(
        stack.url("/v1/flows/rag:run"), json={"inputs": {"question": QUESTION}}, headers=headers
    ) as response:
        result = await response.json()
    spans = await stack.traces.whole_trace(trace_id, services=SERVICES, timeout_s=20)
    workflow = named(spans, "gateway", "invoke_workflow").attributes
    assert workflow["gen_ai.operation.name"] == "invoke_workflow"
    assert workflow["gen_ai.workflow.name"] == "rag"
    chat = named(spans, "generation", "chat ").attributes
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.request.model"]
    assert chat["gen_ai.usage.input_tokens"] == result["usage"]["input_tokens"] > 0
    assert chat["gen_ai.usage.output_tokens"] == result["usage"]["output_tokens"] > 0
    assert chat["gen_ai.response.finish_reasons"]
    search = named(spans, "retrieval", "retrieval ").attributes
    assert search["gen_ai.data_source.id"] == "squad"
    assert search["gen_ai.request.top_k"] == len(result["sources"])
    assert named(spans, "retrieval", "embeddings").attributes["gen_ai.operation.name"] == "embeddings"


async def test_no_text_of_the_request_stands_in_any_span(stack: Stack) -> None:
    trace_id, _, headers = traceparent()
    async with stack.http.post(
        stack.url("/v1/flows/rag:run"), json={"inputs": {"question": QUESTION}}, headers=headers
    ) as response:
        result = await response.json()
    spans = await stack.traces.whole_trace(trace_id, services=SERVICES, timeout_s=20)
    everything = json.dumps([[span.name, span.attributes, span.status_message, span.events] for span in spans])
    assert "Kuechly" not in everything
    for source in result["sources"]:
        assert source["text"][:40] not in everything


async def test_a_stream_whose_client_leaves_is_still_one_whole_trace(stack: Stack) -> None:
    trace_id, caller_span, headers = traceparent()
    async with stack.http.post(
        stack.url("/v1/flows/rag:stream"), json={"inputs": {"question": QUESTION}}, headers=headers
    ) as response:
        async for line in response.content:
            if line.startswith(b"event: token"):
                break
        response.close()
    spans = await stack.traces.whole_trace(trace_id, services=SERVICES, timeout_s=20)
    edge = named(spans, "gateway", "penstock.flow.v1.RunService/StreamFlow", "SERVER")
    client = named(spans, "gateway", "penstock.generation.v1.GenerationService/StreamGenerate", "CLIENT")
    server = named(spans, "generation", "penstock.generation.v1.GenerationService/StreamGenerate", "SERVER")
    assert (edge.parent_id, server.parent_id) == (caller_span, client.span_id)
    assert client.parent_id == node(spans, "generate").span_id
    assert [span.attributes["rpc.response.status_code"] for span in (edge, client, server)] == ["CANCELLED"] * 3
    assert not any(span.failed for span in (edge, client, server))
    assert named(spans, "generation", "chat ").parent_id == server.span_id


async def test_a_failing_node_marks_its_spans_and_keeps_the_trace_whole(stack: Stack) -> None:
    flow = {
        "nodes": [
            {"id": "question", "type": "input"},
            {"id": "nowhere", "type": "retrieve", "params": {"collection": "no-such-collection"}},
            {"id": "out", "type": "output"},
        ],
        "edges": [{"source": "question", "target": "nowhere"}, {"source": "nowhere", "target": "out"}],
    }
    async with stack.http.post(stack.url("/v1/flows"), json={"flow_id": "broken", "document": flow, "replace": True}) as kept:
        assert kept.status == 200, await kept.text()
    trace_id, caller_span, headers = traceparent()
    async with stack.http.post(
        stack.url("/v1/flows/broken:stream"), json={"inputs": {"question": QUESTION}}, headers=headers
    ) as response:
        body = await response.text()
    assert "COLLECTION_NOT_FOUND" in body
    spans = await stack.traces.whole_trace(trace_id, services=("gateway", "retrieval"), timeout_s=20)
    edge = named(spans, "gateway", "penstock.flow.v1.RunService/StreamFlow", "SERVER")
    failed, client = node(spans, "retrieve"), named(spans, "gateway", "penstock.retrieval", "CLIENT")
    server = named(spans, "retrieval", "penstock.retrieval", "SERVER")
    assert edge.parent_id == caller_span
    assert (client.parent_id, server.parent_id) == (failed.span_id, client.span_id)
    assert failed.failed
    assert client.failed
    assert not server.failed, "a collection that is not there is the caller's fault, not the server's"
    assert {each.attributes["penstock.error.reason"] for each in (edge, client, server)} == {"COLLECTION_NOT_FOUND"}
