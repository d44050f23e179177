"""What a caller says of one run beside its inputs, from the wire to the backends, and what editors are told of flows."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.clients import Penstock
from penstock.errors import InvalidArgument, PermissionDenied
from tests.gateway.fakes import RAG
from tests.gateway.serving import Stack, serving

OPEN = json.dumps({**json.loads(RAG), "overrides": "all", "description": "Answers from squad."})
CLOSED = json.dumps({**json.loads(RAG), "overrides": "none"})


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, document in (("rag", RAG), ("open", OPEN), ("closed", CLOSED)):
        (flows / f"{name}.json").write_text(document)
    async with serving(tmp_path, flows_dir=flows) as started:
        yield started


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Penstock]:
    async with Penstock(stack.target) as connected:
        yield connected


async def test_sampling_of_a_request_reaches_the_model_for_that_run_alone(stack: Stack, client: Penstock) -> None:
    await client.run("rag", {"question": "x"}, sampling={"temperature": 0.5, "stop": ["\n"], "max_tokens": 7})
    await client.run("rag", {"question": "x"})
    set_by_caller, own = (request.sampling for request in stack.generation.requests)
    assert (set_by_caller.temperature, list(set_by_caller.stop), set_by_caller.max_tokens) == (0.5, ["\n"], 7)
    assert not own.HasField("temperature")


async def test_overrides_change_a_node_where_the_flow_allows_it(stack: Stack, client: Penstock) -> None:
    await client.run("open", {"question": "x"}, overrides={"docs": {"top_k": 1, "collection": "other"}})
    await client.run("open", {"question": "x"})
    assert [(each.collection, each.top_k) for each in stack.retrieval.requests] == [
        ("collections/other", 1),
        ("collections/squad", 2),
    ]


@pytest.mark.parametrize(
    ("flow", "options", "error", "says"),
    [
        ("rag", {"overrides": {"docs": {"top_k": 1}}}, PermissionDenied, 'would have to be "all"'),
        ("closed", {"sampling": {"seed": 1}}, PermissionDenied, 'its "overrides" is "none"'),
        ("rag", {"sampling": {"temprature": 1}}, InvalidArgument, "did you mean 'temperature'?"),
        ("rag", {"sampling": {"temperature": -1}}, InvalidArgument, "greater than or equal to 0"),
        ("rag", {"sampling": {"model": "other"}}, InvalidArgument, 'unknown parameter "model"'),
        ("open", {"overrides": {"dcs": {"top_k": 1}}}, InvalidArgument, "did you mean 'docs'?"),
        ("open", {"overrides": {"docs": {"top_k": 0}}}, InvalidArgument, "greater than or equal to 1"),
        ("open", {"overrides": {"docs": 3}}, InvalidArgument, "an object of parameters"),
        ("open", {"overrides": {"prompt": {"template": "{other}"}}}, InvalidArgument, "other inputs or outputs"),
        ("rag", {"session": "s" * 257}, InvalidArgument, "at most 256 bytes"),
        ("rag", {"messages": [("oracle", "hm")]}, InvalidArgument, "unknown role 'oracle'"),
        ("rag", {"tools": [{"name": "no spaces"}]}, InvalidArgument, "letters, digits"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    client: Penstock, flow: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says.replace("?", r"\?")):
        await client.run(flow, {"question": "x"}, **options)


async def test_a_flow_tells_what_it_is_for(client: Penstock) -> None:
    assert (await client.get_flow("open")).description == "Answers from squad."
    assert [each.description async for each in client.list_flows()] == ["", "Answers from squad.", ""]


async def test_the_schema_of_flows_is_served(stack: Stack, client: Penstock) -> None:
    schema = await client.flow_schema()
    jsonschema.Draft202012Validator(schema).validate(json.loads(RAG))
    async with stack.http.get(f"{stack.url}/v1/flows:schema") as response:
        assert await response.json() == schema
    assert {"loop", "map", "switch", "join", "flow"} <= schema["$defs"].keys()


async def test_validating_tells_an_editor_the_ports_of_each_node(stack: Stack) -> None:
    async with stack.http.post(f"{stack.url}/v1/flows:validate", json={"document": json.loads(RAG)}) as response:
        nodes = {node["node_id"]: node for node in (await response.json())["nodes"]}
    assert [port["name"] for port in nodes["prompt"]["inputs"]] == ["context", "question"]
    assert nodes["docs"]["outputs"] == [{"name": "documents", "type": "documents"}]
