"""Every bad input of the contract: a clear error with a stable reason over gRPC and over HTTP, and the servers go on."""

import asyncio
import io
import json
import signal
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from penstock.channel import rpc_errors
from penstock.errors import PenstockError
from penstock.flow.v1 import flow_pb2, flow_pb2_grpc
from penstock.generation.v1 import generation_pb2, generation_pb2_grpc
from penstock.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

FLOWS, RUNS = flow_pb2_grpc.FlowServiceStub, flow_pb2_grpc.RunServiceStub
RETRIEVAL, GENERATION = retrieval_pb2_grpc.RetrievalServiceStub, generation_pb2_grpc.GenerationServiceStub


def flow_of(*nodes: dict[str, Any], edges: list[tuple[str, str]]) -> str:
    return json.dumps({"nodes": nodes, "edges": [{"source": source, "target": target} for source, target in edges]})


QUESTION = {"id": "question", "type": "input"}
OUT = {"id": "out", "type": "output"}
CYCLE = flow_of(
    QUESTION,
    {"id": "a", "type": "transform", "params": {"operation": "upper"}},
    {"id": "b", "type": "transform", "params": {"operation": "lower"}},
    OUT,
    edges=[("a", "b"), ("b", "a"), ("b", "out")],
)
MISSING_INPUT = flow_of({"id": "docs", "type": "retrieve", "params": {"collection": "squad"}}, OUT, edges=[("docs", "out")])
WRONG_TYPE = flow_of(
    QUESTION,
    {"id": "docs", "type": "retrieve", "params": {"collection": "squad"}},
    {"id": "answer", "type": "generate"},
    OUT,
    edges=[("question", "docs"), ("docs", "answer"), ("answer", "out")],
)
UNKNOWN_NODE = flow_of(QUESTION, {"id": "magic", "type": "retreive"}, OUT, edges=[("question", "magic"), ("magic", "out")])
UNKNOWN_PARAM = flow_of(
    QUESTION,
    {"id": "docs", "type": "retrieve", "params": {"collection": "squad", "topk": 3}},
    OUT,
    edges=[("question", "docs"), ("docs", "out")],
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The same bad input both ways: a stub's method with its request, and the HTTP path with its body."""

    name: str
    service: str
    stub: Any
    method: str
    request: Any
    path: str
    reason: str
    status: int
    says: str
    streams: bool = False
    body: dict[str, Any] = field(default_factory=dict)


def run(name: str, **inputs: Any) -> flow_pb2.RunFlowRequest:
    request = flow_pb2.RunFlowRequest(name=name)
    request.inputs.update(inputs)
    return request


def create(case: str, document: str, says: str) -> Case:
    request = flow_pb2.CreateFlowRequest(flow_id="bad", document=document)
    return Case(
        name=case, service="gateway", stub=FLOWS, method="CreateFlow", request=request,
        path="/v1/flows", reason="INVALID_FLOW", status=400, says=says,
    )  # fmt: skip


def search(case: str, request: retrieval_pb2.SearchRequest, reason: str, status: int, says: str) -> Case:
    return Case(
        name=case, service="retrieval", stub=RETRIEVAL, method="Search", request=request,
        path=f"/v1/{request.collection}:search", reason=reason, status=status, says=says,
    )  # fmt: skip


def generate(case: str, request: generation_pb2.GenerateRequest, reason: str, status: int, says: str) -> Case:
    return Case(
        name=case, service="generation", stub=GENERATION, method="Generate", request=request,
        path=f"/v1/{request.model}:generate", reason=reason, status=status, says=says,
    )  # fmt: skip


def running(case: str, request: flow_pb2.RunFlowRequest, reason: str, status: int, says: str) -> Case:
    return Case(
        name=case, service="gateway", stub=RUNS, method="RunFlow", request=request,
        path=f"/v1/{request.name}:run", reason=reason, status=status, says=says,
    )  # fmt: skip


CASES = [
    running("an unknown flow", run("flows/nowhere", question="x"), "FLOW_NOT_FOUND", 404, "nowhere"),
    running("an input it does not have", run("flows/rag", question="x", colour="red"), "INVALID_INPUTS", 400, "colour"),
    running("no input where one is required", run("flows/rag"), "INVALID_INPUTS", 400, "question"),
    running("an input of the wrong type", run("flows/rag", question=7), "INVALID_INPUTS", 400, "question"),
    running("an empty question", run("flows/rag", question="  "), "EMPTY_TEXT", 400, "question"),
    create("a cycle", CYCLE, "a"),
    create("a missing input", MISSING_INPUT, "docs"),
    create("a wrong type on an edge", WRONG_TYPE, "answer"),
    create("an unknown node type", UNKNOWN_NODE, "retrieve"),
    create("an unknown parameter", UNKNOWN_PARAM, "top_k"),
    create("a document that is not JSON", '{"nodes": [', ""),
    search(
        "an unknown collection", retrieval_pb2.SearchRequest(collection="collections/nowhere", text="x"),
        "COLLECTION_NOT_FOUND", 404, "nowhere",
    ),
    search("an empty text", retrieval_pb2.SearchRequest(collection="collections/squad", text=" "), "EMPTY_TEXT", 400, ""),
    search(
        "top_k of 0", retrieval_pb2.SearchRequest(collection="collections/squad", text="x", top_k=0),
        "TOP_K_OUT_OF_RANGE", 400, "1000",
    ),
    search(
        "top_k of a million", retrieval_pb2.SearchRequest(collection="collections/squad", text="x", top_k=1_000_000),
        "TOP_K_OUT_OF_RANGE", 400, "1000",
    ),
    search(
        "a vector of the wrong size", retrieval_pb2.SearchRequest(collection="collections/squad", vector=b"\0" * 8),
        "DIMENSION_MISMATCH", 400, "384",
    ),
    generate(
        "an unknown model", generation_pb2.GenerateRequest(model="models/gpt-9", prompt="x"), "MODEL_NOT_FOUND", 404, "gpt-9"
    ),
    generate("an empty prompt", generation_pb2.GenerateRequest(model="models/default", prompt=" "), "EMPTY_TEXT", 400, ""),
    generate(
        "a prompt longer than the window", generation_pb2.GenerateRequest(model="models/default", prompt="word " * 30_000),
        "PROMPT_TOO_LONG", 400, "token",
    ),
    generate(
        "a message over the limit", generation_pb2.GenerateRequest(model="models/default", prompt="x" * (3 * 2**20)),
        "MESSAGE_TOO_LARGE", 413, "limit",
    ),
    generate(
        "a negative temperature",
        generation_pb2.GenerateRequest(
            model="models/default", prompt="x", sampling=generation_pb2.Sampling(temperature=-1)
        ),
        "INVALID_ARGUMENT", 400, "temperature",
    ),
]  # fmt: skip


async def over_grpc(stack: Stack, case: Case) -> PenstockError:
    address = stack.local.services[case.service].grpc
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(PenstockError) as caught, rpc_errors(case.service):
            await getattr(case.stub(channel), case.method)(case.request, timeout=60)
    return caught.value


async def over_http(stack: Stack, case: Case) -> tuple[int, dict[str, Any]]:
    body = case.body or json_format.MessageToDict(case.request, preserving_proto_field_name=True)
    for bound_by_the_path in ("name", "collection", "model"):
        if str(body.get(bound_by_the_path, " ")) in case.path:
            del body[bound_by_the_path]
    data = io.BytesIO(json.dumps(body).encode())
    headers = {"content-type": "application/json"}
    async with stack.http.post(stack.url(case.path, case.service), data=data, headers=headers) as response:
        return response.status, (await response.json())["error"]


def reason_of(error: dict[str, Any]) -> str:
    return next(each["reason"] for each in error["details"] if each["@type"].endswith("ErrorInfo"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_has_the_same_clear_error_both_ways(stack: Stack, case: Case) -> None:
    raised = await over_grpc(stack, case)
    status, error = await over_http(stack, case)
    assert (raised.reason, raised.code.http_status) == (case.reason, case.status)
    assert (reason_of(error), status) == (case.reason, case.status)
    told = raised.message + " ".join(str(each) for each in raised.violations)
    assert case.says in told
    assert case.says in json.dumps(error)


@pytest.mark.parametrize(
    ("path", "data", "reason", "status"),
    [
        ("/v1/flows/rag:run", b'{"inputs": {"question": ', "MALFORMED_REQUEST", 400),
        ("/v1/flows/rag:run", b"\xff\xfe", "MALFORMED_REQUEST", 400),
        ("/v1/flows/rag:run", b'{"inputs": {"question": "x"}, "colour": 1}', "UNKNOWN_FIELD", 400),
        ("/v1/flows/rag:run", b'{"inputs": 7}', "MALFORMED_REQUEST", 400),
        ("/v1/nothing/here", b"{}", "ROUTE_NOT_FOUND", 404),
    ],
)
async def test_what_only_http_can_get_wrong_has_a_reason_too(
    stack: Stack, path: str, data: bytes, reason: str, status: int
) -> None:
    async with stack.http.post(stack.url(path), data=data, headers={"content-type": "application/json"}) as response:
        assert (response.status, reason_of((await response.json())["error"])) == (status, reason)


async def test_the_servers_go_on_after_all_of_it(stack: Stack) -> None:
    async with stack.http.post(stack.url("/v1/flows/rag:run"), json={"inputs": {"question": "Who won?"}}) as response:
        assert response.status == 200
        assert (await response.json())["outputs"]["answer"]


@pytest.mark.parametrize(("dead", "flow"), [("retrieval", "rag"), ("generation", "rag")])
async def test_a_dead_service_is_named_and_the_gateway_goes_on(own_stack: Stack, dead: str, flow: str) -> None:
    process = own_stack.local.services[dead].process
    process.send_signal(signal.SIGKILL)
    await process.wait()
    case = running("", run(f"flows/{flow}", question="Who won?"), "BACKEND_UNAVAILABLE", 503, dead)
    raised = await over_grpc(own_stack, case)
    status, error = await over_http(own_stack, case)
    assert (raised.reason, reason_of(error), status) == ("BACKEND_UNAVAILABLE", "BACKEND_UNAVAILABLE", 503)
    assert raised.metadata["service"] == dead
    assert raised.metadata["node"]
    async with own_stack.http.get(own_stack.url("/v1/flows")) as response:
        assert response.status == 200


async def test_clients_that_leave_midstream_free_what_they_held(stack: Stack) -> None:
    async def leave() -> None:
        async with stack.http.post(
            stack.url("/v1/flows/rag:stream"), json={"inputs": {"question": "Tell me everything."}}
        ) as response:
            await response.content.readline()
            response.close()

    await asyncio.gather(*(leave() for _ in range(8)))
    await test_the_servers_go_on_after_all_of_it(stack)
