"""agent: which calls it makes in which order, its bounds, what goes wrong in it, and what it leaves."""

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.backends import WebAnswer
from gateway.execution import Call, ChatMessage, NodeFinished, NodeStarted, RunResult, SourcesFound, Token
from gateway.overriding import overridden
from gateway.validation import examine, validate
from penstock.errors import (
    BackendUnavailable,
    BudgetExceeded,
    CollectionNotFound,
    DeadlineExceeded,
    ModelNotFound,
    PermissionDenied,
    PromptTooLong,
    UnsupportedFeature,
)
from tests.gateway.fakes import World, document, node

SEARCH = {
    "name": "search", "description": "Finds passages of the wiki.", "arguments": {"query": "What to look for."},
    "node": {"type": "retrieve", "params": {"collection": "wiki", "top_k": 2}},
}  # fmt: skip
ORDERS = {
    "name": "orders", "description": "The customer's orders above a price.", "given": ["customer"],
    "node": {
        "type": "sql",
        "params": {
            "connection": "orders", "parameters": {"customer": "text", "least": "number"},
            "query": "SELECT * FROM orders WHERE customer = :customer AND total > :least",
        },
    },
}  # fmt: skip
SUMS = {"name": "calculate", "description": "Computes.", "node": {"type": "calculator"}}
TIME = {
    "name": "weather",
    "description": "Asks.",
    "node": {"type": "http", "params": {"url": "https://api.example.com/{city}"}},
}


def agent(*tools: dict[str, Any], given: tuple[str, ...] = (), **params: Any) -> str:
    return document(
        node("question", "input"),
        *(node(name, "input") for name in given),
        node("agent", "agent", tools=list(tools or (SEARCH, SUMS)), **params),
        *(node(name, "output") for name in ("text", "steps", "status")),
        edges=["question > agent.prompt", *(f"{name} > agent.{name}" for name in given)]
        + [f"agent.{name} > {name}" for name in ("text", "steps", "status")],
    )


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({"tool": tool, "arguments": arguments})


def answer(text: str) -> str:
    return json.dumps({"answer": text})


async def test_tools_are_used_in_the_order_in_which_the_model_asks_and_their_results_are_told(world: World) -> None:
    world.generator.script = [call("search", query="towers"), call("calculate", expression="2 * 21"), answer("It is 42.")]
    result = await world.compile(agent(system="Be brief.", temperature=0.5)).run({"question": "How tall?"})
    assert result.outputs == {
        "text": "It is 42.",
        "status": "done",
        "steps": [
            {"tool": "search", "arguments": {"query": "towers"}, "result": "[1] passage 1\n\n[2] passage 2", "failed": False},
            {"tool": "calculate", "arguments": {"expression": "2 * 21"}, "result": "42", "failed": False},
        ],
    }
    assert (result.spent.model_calls, result.spent.retrievals, result.bounded_nodes) == (3, 1, ())
    assert result.finish_reason == "stop"
    assert [each.node_id for each in result.sources] == ["agent/search"]
    first, _, last = world.generator.requests
    assert first.prompt == "How tall?"
    assert first.system.startswith("Be brief.\n\nYou can use these tools")
    assert (
        '- search: Finds passages of the wiki. Arguments: {"type":"object","properties":{"query":{"type":"string",'
        in first.system
    )
    assert first.form is not None
    assert first.form.kind == "json_schema"
    assert first.sampling.temperature == 0.5
    assert last.messages == (
        ChatMessage(role="user", content="How tall?"),
        ChatMessage(role="assistant", content='{"tool":"search","arguments":{"query":"towers"}}'),
        ChatMessage(role="user", content="Result of search:\n[1] passage 1\n\n[2] passage 2"),
        ChatMessage(role="assistant", content='{"tool":"calculate","arguments":{"expression":"2 * 21"}}'),
    )
    assert last.prompt == "Result of calculate:\n42"


async def test_arguments_are_the_inputs_that_the_flow_does_not_give_itself(world: World) -> None:
    world.generator.script = [call("orders", least="3"), call("orders", customer="eve", least=1), answer("Two.")]
    world.databases.rows = [{"id": 7}, {"id": 8}]
    result = await world.compile(agent(ORDERS, given=("customer",))).run({"question": "What did I buy?", "customer": "ann"})
    assert world.databases.calls[0][2] == {"customer": "ann", "least": 3}
    assert len(world.databases.calls) == 1
    assert result.outputs["steps"][0]["result"] == "id\n7\n8"
    assert result.outputs["steps"][1]["failed"]
    assert 'there is no argument "customer"' in result.outputs["steps"][1]["result"]
    schema = json.loads(world.generator.requests[0].form.value)["anyOf"][0]["properties"]["arguments"]
    assert schema == {
        "type": "object", "properties": {"least": {"type": "number"}}, "required": ["least"], "additionalProperties": False,
    }  # fmt: skip


async def test_at_its_bound_the_model_is_asked_once_more_and_without_tools(world: World) -> None:
    world.generator.script = [call("calculate", expression="1"), call("calculate", expression="2"), "I think 3."]
    result = await world.compile(agent(max_rounds=2)).run({"question": "?"})
    assert (result.outputs["text"], result.outputs["status"]) == ("I think 3.", "bounded")
    assert result.bounded_nodes == ("agent",)
    assert [step["result"] for step in result.outputs["steps"]] == ["1", "2"]
    last = world.generator.requests[-1]
    assert (last.form, last.system) == (None, "")
    assert last.prompt.startswith("Result of calculate:\n2\n\nNo tool can be used any more")
    assert world.generator.script == []


async def test_what_fails_in_a_tool_is_told_to_the_model_and_is_not_the_runs_end(world: World) -> None:
    async def missing(collection: str) -> None:
        raise CollectionNotFound("there is no collection 'wiki'")

    world.retriever.before = missing
    world.web.answer = WebAnswer(status=503, text="")
    world.generator.script = [
        call("search", query="x"), call("calculate", expression="1 +"), call("calculate"), call("weather", city=".."),
        call("weather", city="Bern"), answer("I can't."),
    ]  # fmt: skip
    result = await world.compile(agent(SEARCH, SUMS, TIME)).run({"question": "?"})
    told = [(step["failed"], step["result"]) for step in result.outputs["steps"]]
    assert told[0] == (True, "It failed: there is no collection 'wiki'")
    assert told[1] == (True, "It failed: '1 +' cannot be computed: the expression ends too early")
    assert told[2] == (True, "It failed: the argument 'expression' is missing")
    assert told[3][0]
    assert told[4] == (False, '{"status":503,"text":""}')
    assert result.outputs["text"] == "I can't."


@pytest.mark.parametrize("error", [BudgetExceeded("spent"), DeadlineExceeded("late")])
async def test_the_budget_and_the_deadline_end_the_run(world: World, error: Exception) -> None:
    async def fail(collection: str) -> None:
        raise error

    world.retriever.before = fail
    world.generator.script = [call("search", query="x")]
    with pytest.raises(type(error)):
        await world.compile(agent()).run({"question": "?"})


async def test_every_call_and_every_search_counts_for_the_budget(world: World) -> None:
    flow = json.loads(agent(max_rounds=10))
    world.generator.script = [call("search", query="again")] * 20
    with pytest.raises(BudgetExceeded, match="budget of 3 model calls"):
        await world.compile(json.dumps(flow | {"budget": {"model_calls": 3}})).run({"question": "?"})
    assert len(world.generator.requests) == 3
    with pytest.raises(BudgetExceeded, match="budget of 2 retrievals"):
        await world.compile(json.dumps(flow | {"budget": {"retrievals": 2}})).run({"question": "?"})


async def test_a_result_is_cut_before_the_model_is_told_it(world: World) -> None:
    world.web.answer = WebAnswer(status=200, text="x" * 5000)
    world.generator.script = [call("weather", city="Bern"), answer("Sunny.")]
    result = await world.compile(agent(TIME, result_chars_max=100)).run({"question": "?"})
    told = result.outputs["steps"][0]["result"]
    assert told == '{"status":200,"text":"' + "x" * 78 + " [cut: 100 of 5024 characters]"
    assert world.generator.requests[1].prompt == f"Result of weather:\n{told}"


async def test_an_answer_that_says_nothing_is_asked_for_again_with_what_is_wrong(world: World) -> None:
    world.generator.script = ['{"tool": "look"}', '{"tool": "search", "argum', call("calculate", expression="1"), answer("1")]
    result = await world.compile(agent()).run({"question": "?"})
    assert (result.outputs["text"], result.outputs["status"], result.spent.model_calls) == ("1", "done", 4)
    assert world.generator.requests[1].prompt.startswith('That cannot be used: there is no tool "look"')
    assert world.generator.requests[2].messages[-1].content == '{"tool": "search", "argum'


async def test_a_model_that_never_says_what_to_do_is_asked_for_plain_words_and_the_status_tells(world: World) -> None:
    world.generator.script = ["{", "{", "{", "Well, Denver."]
    result = await world.compile(agent()).run({"question": "?"})
    assert (result.outputs["text"], result.outputs["status"]) == ("Well, Denver.", "malformed")
    assert result.bounded_nodes == ("agent",)


async def test_an_engine_that_holds_no_answer_to_a_form_is_asked_in_words_alone(world: World) -> None:
    def say(request: Any) -> str | Exception:
        if request.form is not None:
            return UnsupportedFeature("no JSON Schemas here")
        return call("calculate", expression="6*7") if len(request.messages) == 0 else "It is 42."

    world.generator.script = say
    result = await world.compile(agent()).run({"question": "?"})
    assert (result.outputs["text"], result.outputs["status"]) == ("It is 42.", "done")
    assert [request.form is None for request in world.generator.requests] == [False, True, True]
    assert result.spent.model_calls == 2


@pytest.mark.parametrize("error", [PromptTooLong("too long"), ModelNotFound("none"), BackendUnavailable("away")])
async def test_what_fails_in_the_model_ends_the_run(world: World, error: Exception) -> None:
    world.generator.script = [error]
    with pytest.raises(type(error)) as refused:
        await world.compile(agent()).run({"question": "?"})
    assert refused.value.metadata["node"] == "agent"


async def test_a_stream_tells_of_every_tool_in_its_place_and_the_answers_text_alone(world: World) -> None:
    world.generator.script = [call("search", query="x"), answer('It is "42".')]
    events = [event async for event in world.compile(agent()).events({"question": "?"})]
    places = [event.node_id for event in events if isinstance(event, NodeStarted | NodeFinished) and "agent" in event.node_id]
    assert places == ["agent", "agent/search", "agent/search", "agent"]
    assert [event.node_id for event in events if isinstance(event, SourcesFound)] == ["agent/search"]
    assert [(event.node_id, event.text) for event in events if isinstance(event, Token)] == [("agent", 'It is "42".')]
    assert isinstance(events[-1], RunResult)
    assert events[-1].outputs["text"] == 'It is "42".'


@pytest.mark.parametrize(
    "script", [["In plain words."], ["{", "{", "{", "In plain words."], [json.dumps({"x": 1, "answer": "In plain words."})]]
)
async def test_whatever_its_form_the_answer_is_streamed_once(world: World, script: list[str]) -> None:
    world.generator.script = list(script)
    events = [event async for event in world.compile(agent()).events({"question": "?"})]
    assert "".join(event.text for event in events if isinstance(event, Token)) == "In plain words."


async def test_tools_have_spans_of_their_own() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world = World(provider)
    world.generator.script = [call("calculate", expression="1"), answer("1")]
    await world.compile(agent()).run({"question": "?"})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["node calculate"].parent == spans["node agent"].context


async def test_a_conversation_comes_before_the_prompt(world: World) -> None:
    before = (ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello"))
    world.generator.script = [answer("Yes.")]
    await world.compile(agent(history=True)).run({"question": "Still there?"}, call=Call(messages=before))
    assert world.generator.requests[0].messages == before
    assert world.generator.requests[0].prompt == "Still there?"


async def test_a_caller_sets_how_it_samples_as_for_a_generate_node(world: World) -> None:
    world.generator.script = [answer("Yes.")]
    call_ = Call(sampling={"temperature": 0.0, "max_tokens": 5, "presence_penalty": 1.0})
    await world.compile(agent(temperature=1.0)).run({"question": "?"}, call=call_)
    sampling = world.generator.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.presence_penalty) == (0.0, 5, 1.0)


async def test_another_flow_is_a_tool_and_its_nodes_are_told_below_it(world: World) -> None:
    world.subflows.documents["echo"] = document(
        node("text", "input"), node("loud", "transform", operation="upper"), node("answer", "output"),
        edges=["text > loud", "loud > answer"],
    )  # fmt: skip
    tool = {
        "name": "shout", "description": "Shouts.",
        "node": {"type": "flow", "params": {"flow": "echo", "inputs": {"text": "text"}, "outputs": {"answer": "text"}}},
    }  # fmt: skip
    world.generator.script = [call("shout", text="hey"), answer("done")]
    compiled = world.compile(agent(tool))
    events = [event async for event in compiled.events({"question": "?"})]
    assert "agent/shout/loud" in [event.node_id for event in events if isinstance(event, NodeStarted)]
    assert events[-1].outputs["steps"][0]["result"] == "HEY"


def test_a_caller_may_set_what_it_is_told_and_never_its_tools() -> None:
    flow = validate(json.dumps(json.loads(agent()) | {"overrides": "all"}))
    changed = overridden(flow, {"agent": {"system": "Be rude.", "max_rounds": 3}})
    params = next(each.params for each in changed.nodes if each.id == "agent")
    assert (params.system, params.max_rounds, len(params.tools)) == ("Be rude.", 3, 2)
    with pytest.raises(PermissionDenied, match="'tools'"):
        overridden(flow, {"agent": {"tools": []}})


@pytest.mark.parametrize(
    ("tool", "field", "message"),
    [
        ({"node": {"type": "loop"}}, "params.tools.0.node.type", 'a node of type "loop" is no tool'),
        ({"node": {"type": "agent"}}, "params.tools.0.node.type", "is no tool"),
        ({"node": {"type": "retrieve"}}, "params.tools.0.node.params.collection", "is required"),
        (
            {"node": {"type": "transform", "params": {"operation": "nothing"}}},
            "params.tools.0.node.params.operation",
            "unknown",
        ),
        ({"given": ["nothing"]}, "params.tools.0.given", "no input 'nothing'; its inputs: query"),
        ({"arguments": {"nothing": "x"}}, "params.tools.0.arguments", "no input 'nothing'"),
        (
            {"node": {"type": "transform", "params": {"operation": "format_documents"}}},
            "params.tools.0.node",
            "no model can write",
        ),
        ({"name": "a b"}, "params.tools.0.name", "match pattern"),
        ({"description": ""}, "params.tools.0.description", "at least 1"),
        ({"nod": {}}, "params.tools.0.nod", "unknown field"),
    ],
)
def test_faults_name_the_tool(tool: dict[str, Any], field: str, message: str) -> None:
    _, faults = examine(agent(SEARCH | tool))
    assert [(fault.node_id, fault.field) for fault in faults if message in fault.message] == [("agent", field)]


def test_what_does_not_go_together_is_a_fault() -> None:
    _, faults = examine(agent(SEARCH, SEARCH))
    assert "two tools have the name 'search'" in faults[0].message
    _, faults = examine(agent(structured_output={"json_object": True}))
    assert "an agent answers in words" in faults[0].message
    _, faults = examine(agent(SEARCH | {"given": ["query"]}, SUMS | {"given": ["expression"]}, given=("query", "expression")))
    assert faults == ()
