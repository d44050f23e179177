"""Real exports: what becomes of them, and that they run."""

import json
from pathlib import Path

import pytest

from gateway.execution import Call, ChatMessage
from gateway.langflow import attempt, explained
from tests.gateway.fakes import World
from tests.gateway.langflow.written import EXPORTS, export_of, imported, nodes_of, run

REFUSED = {"1.2.0-loop-template": {"ArXivComponent-LChQN"}}
NAMES = [path.stem for path in EXPORTS]


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_what_every_component_became_is_told(path: Path) -> None:
    made, faults = attempt(path.read_bytes())
    if path.stem in REFUSED:
        assert {fault.node_id for fault in faults} == REFUSED[path.stem]
        return
    assert made is not None, faults
    components = {node["id"] for node in json.loads(path.read_text())["data"]["nodes"] if node["type"] != "noteNode"}
    assert {line.component for line in made.lines} == components
    text = explained(made.lines)
    assert all(component in text for component in components)
    assert all(line.became or line.notes for line in made.lines)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
async def test_a_real_export_runs_with_nothing_but_a_message(name: str) -> None:
    world = World()
    world.generator.script = lambda request: _said(request.form)
    outputs = await run(world, export_of(name), _message(name), model="small", collection="squad")
    assert all(isinstance(value, str) and value for value in outputs.values())
    assert {request.model for request in world.generator.requests} <= {"small"}


def _message(name: str) -> dict[str, str]:
    inputs = {each["params"]["name"] for each in imported(export_of(name)).document["nodes"] if each["type"] == "input"}
    return {"input_value": "How many?"} if "input_value" in inputs else {}


def _said(form: object) -> str:
    if form is None:
        return "Forty-two."
    schema = json.loads(form.value)  # type: ignore[attr-defined]
    if "anyOf" in schema:
        return '{"answer": "Forty-two."}'
    items = schema["properties"]["objects"]["items"]["properties"]
    return json.dumps({"objects": [{name: f"<{name}>" for name in items}]})


async def test_a_document_is_an_input_and_stands_in_the_instructions() -> None:
    world = World()
    await run(world, export_of("1.1.4-document-qa"), {"input_value": "Who?", "File-wUadf": "Ada wrote it."})
    (request,) = world.generator.requests
    assert request.prompt == "Who?"
    assert "Ada wrote it." in request.system
    assert (request.sampling.temperature, request.sampling.seed) == (0.1, 1)


async def test_a_memory_chatbot_reads_what_was_said_under_the_names_of_langflow() -> None:
    world = World()
    flow = world.compile(json.dumps(imported(export_of("1.6.9-memory-chatbot")).document))
    for message in ("My name is Ada.", "What is my name?"):
        await flow.run({"input_value": message}, call=Call(session="s"))
    assert "User: My name is Ada.\nAI: It was Denver." in world.generator.requests[1].system
    kept = await world.sessions.read("s", 10)
    assert [turn.role for turn in kept] == ["user", "assistant", "user", "assistant"]
    assert kept[2] == ChatMessage(role="user", content="What is my name?")


async def test_a_table_of_fields_is_a_schema_and_its_values_fill_the_template() -> None:
    world = World()
    world.generator.script = ['{"objects": [{"EBITIDA": "900", "NET_INCOME": "500", "GROSS_PROFIT": "1200"}]}']
    outputs = await run(world, export_of("1.3.4-financial-report-parser"), {"input_value": "In 2022 ..."})
    assert outputs == {"message": "EBITIDA: 900  ,  Net Income: 500 , GROSS_PROFIT: 1200"}
    (request,) = world.generator.requests
    assert request.form is not None
    items = json.loads(str(request.form.value))["properties"]["objects"]["items"]
    assert set(items["properties"]) == {"EBITIDA", "NET_INCOME", "GROSS_PROFIT"}


async def test_a_calculator_is_a_tool_of_an_agent_of_ours() -> None:
    world = World()
    world.generator.script = ['{"tool": "calculate", "arguments": {"expression": "6000*1.3/200"}}', '{"answer": "$39"}']
    assert await run(world, export_of("1.1.4-saas-pricing")) == {"message": "$39"}
    assert "39" in world.generator.requests[1].prompt


async def test_an_agent_queries_the_database_that_the_gateway_names() -> None:
    world = World()
    world.databases.rows = [{"price": 9}]
    world.generator.script = [
        '{"tool": "query_database", "arguments": {"query": "SELECT price FROM plans"}}',
        '{"answer": "9"}',
    ]
    outputs = await run(world, export_of("1.13.0-saas-pricing"), {"input_value": "How much?"}, connection="plans")
    assert outputs == {"message": "9"}
    assert world.databases.calls == [("plans", "SELECT price FROM plans", {})]


async def test_a_knowledge_base_is_the_collection_that_is_chosen() -> None:
    world = World()
    outputs = await run(world, export_of("1.8.0-knowledge-retrieval"), collection="squad")
    assert world.retriever.calls == [("squad", "IBM Acquires DataStax", 5)]
    assert outputs == {"message": "passage 1\npassage 2"}


def test_values_of_a_prompt_are_inputs_that_callers_may_set() -> None:
    made = imported(export_of("1.8.0-seo-keyword-generator"))
    product = next(each for each in nodes_of(made, "input") if each["name"].endswith("-product"))
    assert "FocusFlow" in product["default"]
    assert not product["required"]
    fields = next(each["fields"] for each in made.document["origin"]["components"] if "product" in each["fields"])
    assert fields["product"] == f"input:{product['name']}"
