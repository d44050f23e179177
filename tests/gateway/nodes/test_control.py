"""switch, join, map, loop and flow: which nodes run, how often, and with what."""

import asyncio
import json
from typing import Any

import pytest

from gateway.execution import Call, NodeStarted
from gateway.validation import examine
from penstock.errors import BudgetExceeded, CollectionNotFound, FailedPrecondition, FlowNotFound, InvalidInputs
from tests.gateway.fakes import World, document, node


def body(*nodes: dict[str, Any], edges: list[str]) -> dict[str, Any]:
    return json.loads(document(*nodes, edges=edges))


ROUTED = document(
    node("question", "input"),
    node("route", "switch", cases=[{"name": "look", "when": 'value.endsWith("?")'}], otherwise="talk"),
    node("docs", "retrieve", collection="squad"),
    node("found", "prompt", template="{docs} {question}"),
    node("chat", "prompt", template="no question: {value}"),
    node("either", "join", inputs=["looked", "talked"]),
    node("answer", "output"),
    node("took", "output"),
    node("sources", "output"),
    edges=[
        "question.value > route.value", "route.look > docs.query", "docs.documents > found.docs", "route.look > found.question",
        "route.talk > chat.value", "found.text > either.looked", "chat.text > either.talked", "either.value > answer.value",
        "either.branch > took.value", "docs.documents > sources.value",
    ],
)  # fmt: skip


async def test_only_the_branch_that_was_taken_runs_and_the_join_takes_its_value(world: World) -> None:
    compiled = world.compile(ROUTED)
    started = [event.node_id async for event in compiled.events({"question": "hello"}) if isinstance(event, NodeStarted)]
    assert "docs" not in started
    assert "found" not in started
    assert "sources" not in started
    result = await compiled.run({"question": "hello"})
    assert result.outputs == {"answer": "no question: hello", "took": "talked"}
    assert world.retriever.calls == []
    result = await compiled.run({"question": "who?"})
    assert result.outputs["took"] == "looked"
    assert str(result.outputs["answer"]).endswith("who?")
    assert len(world.retriever.calls) == 1
    assert len(result.outputs["sources"]) == 2


async def test_a_condition_reads_other_inputs_and_must_be_true_or_false(world: World) -> None:
    flow = document(
        node("question", "input"), node("limit", "input", type="number"),
        node("route", "switch", cases=[{"name": "long", "when": "size(value) > limit"}]),
        node("answer", "output"), node("other", "output"),
        edges=["question > route.value", "limit > route.limit", "route.long > answer", "route.otherwise > other"],
    )  # fmt: skip
    assert (await world.compile(flow).run({"question": "abc", "limit": 2})).outputs == {"answer": "abc"}
    assert (await world.compile(flow).run({"question": "abc", "limit": 3})).outputs == {"other": "abc"}
    with pytest.raises(FailedPrecondition, match="true or false"):
        await world.compile(flow.replace("size(value) > limit", "size(value) + limit")).run({"question": "a", "limit": 1})


def mapped(**params: Any) -> str:
    inner = body(
        node("item", "input"), node("lang", "input"), node("docs", "retrieve", collection="squad", top_k=1),
        node("said", "prompt", template="{lang}:{item}"), node("text", "output"), node("found", "output"),
        edges=["item > docs", "item > said", "lang > said", "said > text", "docs > found"],
    )  # fmt: skip
    return document(
        node("queries", "input", type="json"), node("lang", "input"), node("lines", "transform", operation="to_text"),
        node("list", "transform", operation="split", separator=","), node("each", "map", body=inner, **params),
        node("texts", "output"), node("found", "output"), node("errors", "output"),
        edges=["queries > lines", "lines > list", "list > each.items", "lang > each.lang", "each.text > texts",
               "each.found > found", "each.errors > errors"],
    )  # fmt: skip


async def test_a_map_keeps_the_order_of_its_items_and_runs_at_most_width_at_a_time(world: World) -> None:
    running, most = 0, 0

    async def slow(_: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005 if len(world.retriever.calls) % 2 else 0.001)
        running -= 1

    world.retriever.before = slow
    result = await world.compile(mapped(width=2)).run({"queries": "a,b,c,d,e", "lang": "en"})
    assert result.outputs["texts"] == ["en:a", "en:b", "en:c", "en:d", "en:e"]
    assert [len(found) for found in result.outputs["found"]] == [1] * 5
    assert most == 2


@pytest.mark.parametrize(("policy", "texts"), [("drop", ["en:a", "en:c"]), ("default", ["en:a", "?", "en:c"])])
async def test_an_item_that_fails_is_left_out_or_replaced(world: World, policy: str, texts: list[str]) -> None:
    async def fail_for_b(_: str) -> None:
        if world.retriever.calls[-1][1] == "b":
            raise CollectionNotFound("gone")

    world.retriever.before = fail_for_b
    params = {"on_error": policy, "width": 1, **({"default": {"text": "?", "found": []}} if policy == "default" else {})}
    result = await world.compile(mapped(**params)).run({"queries": "a,b,c", "lang": "en"})
    assert result.outputs["texts"] == texts
    assert result.outputs["errors"] == [{"index": 1, "reason": "COLLECTION_NOT_FOUND", "message": "gone"}]


async def test_an_item_that_fails_ends_the_run_and_the_other_items(world: World) -> None:
    async def fail_for_b(_: str) -> None:
        if world.retriever.calls[-1][1] == "b":
            raise CollectionNotFound("gone")
        await asyncio.sleep(30)

    world.retriever.before = fail_for_b
    with pytest.raises(CollectionNotFound) as caught:
        await asyncio.wait_for(world.compile(mapped()).run({"queries": "a,b", "lang": "en"}), 5)
    assert caught.value.metadata["item"] == "1"
    assert world.retriever.cancelled.is_set()


async def test_a_map_refuses_more_items_than_its_bound(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="3 items, more than the items_max of 2"):
        await world.compile(mapped(items_max=2)).run({"queries": "a,b,c", "lang": "en"})


async def test_a_map_over_nothing_gives_nothing(world: World) -> None:
    inner = body(node("item", "input", type="documents"), node("text", "prompt", template="{item}"), node("said", "output"),
                 edges=["item > text", "text > said"])  # fmt: skip
    flow = document(node("q", "input"), node("docs", "retrieve", collection="squad"), node("each", "map", body=inner),
                    node("out", "output"), edges=["q > docs", "docs > each.items", "each.said > out"])  # fmt: skip
    assert (await world.compile(flow).run({"q": "x"})).outputs == {"out": ["[1] passage 1", "[1] passage 2"]}
    world.retriever.documents = ()
    assert (await world.compile(flow).run({"q": "x"})).outputs == {"out": []}


def looped(**params: Any) -> str:
    inner = body(
        node("question", "input"), node("answer", "input"), node("round", "input", type="number"),
        node("docs", "retrieve", collection="squad"), node("query", "prompt", template="{question} {answer}"),
        node("prompt", "prompt", template="{docs}|{round}"), node("model", "generate"), node("next", "output", name="answer"),
        edges=["question > query", "answer > query", "query > docs", "docs > prompt", "round > prompt", "prompt > model",
               "model > next"],
    )  # fmt: skip
    return document(
        node("question", "input"), node("again", "loop", state={"answer": {"initial": ""}}, body=inner, **params),
        node("answer", "output"), node("rounds", "output"), node("status", "output"),
        edges=["question > again.question", "again.answer > answer", "again.rounds > rounds", "again.status > status"],
    )  # fmt: skip


async def test_a_loop_carries_its_state_from_round_to_round(world: World) -> None:
    result = await world.compile(looped(max_rounds=3)).run({"question": "q"})
    assert [query for _, query, _ in world.retriever.calls] == ["q ", "q It was Denver.", "q It was Denver."]
    assert result.outputs == {"answer": "It was Denver.", "rounds": 3, "status": "done"}
    assert [request.prompt.rpartition("|")[2] for request in world.generator.requests] == ["1", "2", "3"]
    assert result.bounded_nodes == ()


async def test_a_loop_ends_when_its_condition_holds(world: World) -> None:
    result = await world.compile(looped(max_rounds=9, until='answer.contains("Denver")')).run({"question": "q"})
    assert (result.outputs["rounds"], result.outputs["status"]) == (1, "done")


async def test_reaching_the_bound_is_a_status_and_never_part_of_the_answer(world: World) -> None:
    result = await world.compile(looped(max_rounds=2, until='answer == "never"')).run({"question": "q"})
    assert result.outputs == {"answer": "It was Denver.", "rounds": 2, "status": "bounded"}
    assert result.bounded_nodes == ("again",)
    with pytest.raises(BudgetExceeded, match="its 2 rounds"):
        await world.compile(looped(max_rounds=2, until='answer == "never"', on_bound="fail")).run({"question": "q"})


@pytest.mark.parametrize(
    ("budget", "what"), [({"model_calls": 2}, "model_calls"), ({"retrievals": 2}, "retrievals"), ({"tokens": 9}, "tokens")]
)
async def test_a_budget_ends_a_run_that_would_take_more(world: World, budget: dict[str, int], what: str) -> None:
    flow = json.loads(looped(max_rounds=50)) | {"budget": budget}
    with pytest.raises(BudgetExceeded) as caught:
        await world.compile(json.dumps(flow)).run({"question": "q"})
    assert caught.value.metadata["budget"] == what
    assert len(world.generator.requests) == 2


async def test_nodes_inside_are_told_with_their_place_and_their_sources_once(world: World) -> None:
    compiled = world.compile(looped(max_rounds=2))
    started = [event.node_id async for event in compiled.events({"question": "q"}) if isinstance(event, NodeStarted)]
    assert started.count("again/docs") == 2
    result = await compiled.run({"question": "q"})
    assert [(found.node_id, len(found.documents)) for found in result.sources] == [("again/docs", 2)]


async def test_a_flow_runs_another_one_on_the_same_budget(world: World) -> None:
    world.subflows.documents["inner"] = looped(max_rounds=2)
    flow = document(
        node("q", "input"), node("sub", "flow", flow="inner", inputs={"question": "text"}, outputs={"answer": "text"}),
        node("out", "output"), edges=["q > sub.question", "sub.answer > out"],
    )  # fmt: skip
    result = await world.compile(flow).run({"q": "x"})
    assert result.outputs == {"out": "It was Denver."}
    assert (result.spent.model_calls, result.spent.retrievals) == (2, 2)
    with pytest.raises(FlowNotFound):
        await world.compile(flow.replace('"inner"', '"other"')).run({"q": "x"})
    with pytest.raises(InvalidInputs):
        await world.compile(flow.replace('"question"', '"query"').replace("sub.question", "sub.query")).run({"q": "x"})


async def test_a_flow_that_runs_itself_ends(world: World) -> None:
    world.subflows.documents["self"] = flow = document(
        node("q", "input"), node("sub", "flow", flow="self", inputs={"q": "text"}, outputs={"out": "text"}),
        node("out", "output"), edges=["q > sub.q", "sub.out > out"],
    )  # fmt: skip
    with pytest.raises(FailedPrecondition, match="more than 8 flows run inside one another"):
        await world.compile(flow).run({"q": "x"})


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        (node("x", "loop", max_rounds=2, state={"a": {"initial": ""}}, body={"nodes": []}), "params.body.nodes", "at least 1"),
        (node("x", "loop", state={"a": {}}, body=json.loads(ROUTED)), "params.max_rounds", "is required"),
        (node("x", "loop", max_rounds=2, state={"a": {}}, body=json.loads(ROUTED)), "params.body.nodes", "not a variable"),
        (node("x", "map", body=json.loads(ROUTED)), "params.body.nodes", "no input 'item'"),
        (node("x", "switch", cases=[{"name": "a", "when": "1 +"}]), "params.cases.0.when", "Syntax error"),
        (node("x", "switch", cases=[{"name": "a", "when": "true"}, {"name": "a", "when": "true"}]), "params", "two branches"),
    ],
)  # fmt: skip
def test_a_control_node_that_cannot_run_is_told_with_its_place(wrong: dict[str, Any], field: str, says: str) -> None:
    _, faults = examine(document(node("q", "input"), wrong, node("out", "output"), edges=["q > out"]))
    assert any(fault.node_id == "x" and fault.field == field and says in fault.message for fault in faults), faults


async def test_what_a_caller_says_of_sampling_reaches_every_model(world: World) -> None:
    await world.compile(looped(max_rounds=1)).run({"question": "q"}, call=Call(sampling={"temperature": 0.5, "stop": ["x"]}))
    sampling = world.generator.requests[0].sampling
    assert (sampling.temperature, sampling.stop) == (0.5, ("x",))
