"""generate: what it asks the model for, and what it gives of the answer."""

import json
from typing import Any

import pytest

from gateway.backends import Alternative, Answer, Delta, Finish, Form, LogprobOptions, Sampling, TokenLogprob
from gateway.execution import Call, ChatMessage, RunResult, Token
from gateway.nodes.generate import caller_sampling
from gateway.runnable import FlowRunnable
from gateway.validation import examine
from penstock.errors import BackendUnavailable, FailedPrecondition, InvalidArgument, PermissionDenied
from tests.gateway.fakes import FINISH, World, document, node

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def asking(*ports: str, **params: Any) -> str:
    """A model that is asked a question, with an output for each of its ports."""
    outputs = ports or ("text",)
    return document(
        node("question", "input"),
        node("model", "generate", **params),
        *(node(port, "output") for port in outputs),
        edges=["question > model", *(f"model.{port} > {port}" for port in outputs)],
    )


def faults(flow: str) -> list[str]:
    return [str(fault) for fault in examine(flow)[1]]


def said(text: str, reason: str = "stop") -> Answer:
    return Answer(text=text, finish=Finish(reason=reason, input_tokens=1, output_tokens=1, model="m"))


async def test_everything_that_a_model_can_be_asked_for_reaches_it(world: World) -> None:
    sampling = {
        "max_tokens": 9, "min_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": 3,
        "presence_penalty": 1.0, "frequency_penalty": -1.0, "repetition_penalty": 1.5, "include_stop": True,
    }  # fmt: skip
    flow = asking(
        model="small-1.5", system="Be kind.", n=3, logprobs={"top": 2}, structured_output={"choice": ["yes", "no"]},
        adapter="poet", priority=-5, cache_salt="team", stop=["\n"], **sampling,
    )  # fmt: skip
    await world.compile(flow).run({"question": "Why?"}, call=Call(session="s1"))
    (asked,) = world.generator.requests
    assert asked.sampling == Sampling(stop=("\n",), **sampling)
    assert (asked.model, asked.system, asked.prompt, asked.messages) == ("small-1.5", "Be kind.", "Why?", ())
    assert (asked.n, asked.logprobs, asked.adapter, asked.priority) == (3, LogprobOptions(top=2), "poet", -5)
    assert asked.form == Form(kind="choice", value=("yes", "no"))
    assert (asked.session, asked.cache_salt, asked.raw) == ("s1", "team", False)


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ({"json_schema": SCHEMA}, Form(kind="json_schema", value=json.dumps(SCHEMA, separators=(",", ":")))),
        ({"json_schema": '{"type": "object"}'}, Form(kind="json_schema", value='{"type": "object"}')),
        ({"json_object": True}, Form(kind="json_object")),
        ({"regex": "[a-z]+"}, Form(kind="regex", value="[a-z]+")),
        ({"grammar": 'root ::= "a"'}, Form(kind="grammar", value='root ::= "a"')),
    ],
)
async def test_every_form_reaches_the_model(world: World, written: dict[str, Any], form: Form) -> None:
    world.generator.answer = said('{"city": "Denver"}')
    await world.compile(asking(structured_output=written)).run({"question": "Where?"})
    assert world.generator.requests[0].form == form


async def test_an_answer_in_json_is_given_parsed(world: World) -> None:
    world.generator.answer = said('{"city": "Denver"}')
    flow = asking("json", "text", structured_output={"json_schema": SCHEMA})
    result = await world.compile(flow).run({"question": "Where?"})
    assert result.outputs == {"json": {"city": "Denver"}, "text": '{"city": "Denver"}'}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (said('{"city": "Den', "length"), "raise max_tokens"),
        (said("Denver"), "not the JSON"),
        (said("[" * 40 + "]" * 40), "deep"),
    ],
)
async def test_an_answer_that_is_not_the_json_asked_for_ends_the_run(world: World, answer: Answer, told: str) -> None:
    world.generator.answer = answer
    with pytest.raises(FailedPrecondition, match=told):
        await world.compile(asking("json", structured_output={"json_object": True})).run({"question": "Where?"})


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ('{"rows": [{"a": "x"}, {"a": "yy', {"rows": [{"a": "x"}, {"a": "yy"}]}),
        ('{"rows": [{"a": 1, "b": 12', {"rows": [{"a": 1}]}),
        ('{"rows": [', {"rows": []}),
        ('{"rows": []}', {"rows": []}),
        ('{"ro', {}),
    ],
)
async def test_json_that_broke_off_is_given_as_far_as_it_goes_and_the_node_is_told(
    world: World, text: str, given: object
) -> None:
    flow = world.compile(asking("json", structured_output={"json_object": True}, partial_json=True))
    world.generator.answer = said(text, "length")
    result = await flow.run({"question": "Where?"})
    assert (result.outputs, result.bounded_nodes, result.finish_reason) == ({"json": given}, ("model",), "length")


@pytest.mark.parametrize(("text", "reason"), [("", "length"), ("It is", "length"), ('{"a": "b', "stop")])
async def test_what_is_no_beginning_of_json_ends_the_run_all_the_same(world: World, text: str, reason: str) -> None:
    flow = world.compile(asking("json", structured_output={"json_object": True}, partial_json=True))
    world.generator.answer = said(text, reason)
    with pytest.raises(FailedPrecondition):
        await flow.run({"question": "Where?"})


async def test_all_answers_how_the_first_ended_and_its_tokens_are_outputs(world: World) -> None:
    finish = Finish(reason="stop", input_tokens=3, output_tokens=9, model="m", matched_stop="END")
    token = TokenLogprob(token=" Yes", logprob=-0.5, token_id=7, top=(TokenLogprob(token=" No", logprob=-1.5, token_id=8),))
    other = Alternative(text="No.", reason="length")
    world.generator.answer = Answer(text="Yes.", finish=finish, logprobs=(token,), alternatives=(other,))
    ports = ("text", "texts", "finish_reason", "matched_stop", "logprobs")
    result = await world.compile(asking(*ports, n=2, logprobs={"tokens": [" Yes", " No"]})).run({"question": "?"})
    logprobs = [{"token": " Yes", "logprob": -0.5, "token_id": 7, "top": [{"token": " No", "logprob": -1.5, "token_id": 8}]}]
    assert result.outputs == {
        "text": "Yes.", "texts": ["Yes.", "No."], "finish_reason": "stop", "matched_stop": "END", "logprobs": logprobs,
    }  # fmt: skip
    assert (result.spent.model_calls, result.spent.output_tokens) == (1, 9)


async def test_of_several_answers_only_the_first_is_told_as_it_comes(world: World) -> None:
    ends = (Alternative(text="", reason="length"), Alternative(text="", reason="stop", matched_stop="!"))
    world.generator.parts = [
        Delta(text="o", logprobs=(TokenLogprob(token="o", logprob=-1.0),)), Delta(text="t", index=1), Delta(text="th", index=2),
        Delta(text="ne", logprobs=(TokenLogprob(token="ne", logprob=-2.0),)), Delta(text="wo", index=1),
        Delta(text="ree", index=2),
        Finish(reason="stop", input_tokens=1, output_tokens=6, model="m", alternatives=ends),
    ]  # fmt: skip
    flow = asking("text", "texts", "logprobs", n=3, logprobs={})
    events = [event async for event in world.compile(flow).events({"question": "?"})]
    assert [event.text for event in events if isinstance(event, Token)] == ["o", "ne"]
    assert isinstance(events[-1], RunResult)
    assert events[-1].outputs["texts"] == ["one", "two", "three"]
    assert [each["token"] for each in events[-1].outputs["logprobs"]] == ["o", "ne"]


async def test_a_stream_that_ends_without_its_end_is_a_failure(world: World) -> None:
    world.generator.finishes = False
    with pytest.raises(BackendUnavailable, match="broke off"):
        _ = [event async for event in world.compile(asking()).events({"question": "?"})]


async def test_a_system_text_and_turns_can_come_from_other_nodes(world: World) -> None:
    flow = document(
        node("question", "input"), node("how", "input"), node("before", "input", type="json"),
        node("model", "generate", system="Never seen."), node("answer", "output"),
        edges=["question > model.prompt", "how > model.system", "before > model.messages", "model > answer"],
    )  # fmt: skip
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    compiled = world.compile(flow)
    await compiled.run({"question": "Who?", "how": "Be brief.", "before": turns})
    (asked,) = world.generator.requests
    assert (asked.system, asked.prompt) == ("Be brief.", "Who?")
    assert asked.messages == (ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello."))
    for wrong in (
        {"role": "user"},
        [{"role": "robot", "content": ""}],
        [{"role": "user", "content": [1]}],
        ["Hi"],
        [{}] * 1001,
    ):
        with pytest.raises(FailedPrecondition, match="messages"):
            await compiled.run({"question": "Who?", "how": "So.", "before": wrong})


async def test_history_stands_before_the_prompt_and_is_the_callers_where_it_gives_one(world: World) -> None:
    kept = [ChatMessage(role="user", content=f"kept {number}") for number in range(3)]
    await world.sessions.append("s1", kept)
    compiled = world.compile(asking(history=True, history_max=2))
    await compiled.run({"question": "?"}, call=Call(session="s1"))
    await compiled.run({"question": "?"}, call=Call(session="s1", messages=(ChatMessage(role="user", content="given"),)))
    await compiled.run({"question": "?"}, call=Call(session="another"))
    await compiled.run({"question": "?"})
    asked = [[turn.content for turn in request.messages] for request in world.generator.requests]
    assert asked == [["kept 1", "kept 2"], ["given"], [], []]


async def test_a_raw_prompt_stands_alone(world: World) -> None:
    await world.compile(asking(raw=True)).run({"question": "1, 2, 3,"})
    assert world.generator.requests[0].raw
    flow = document(
        node("q", "input"), node("s", "input"), node("model", "generate", raw=True), node("a", "output"),
        edges=["q > model.prompt", "s > model.system", "model > a"],
    )  # fmt: skip
    assert "the node has no input 'system'" in faults(flow)[0]
    assert "a raw prompt stands alone" in faults(asking(raw=True, system="Be kind."))[0]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"structured_output": {}}, "give exactly one of json_schema"),
        ({"structured_output": {"regex": "a", "json_object": True}}, "found json_object, regex"),
        ({"structured_output": {"json_object": False}}, "json_object must be true"),
        ({"structured_output": {"json_schema": "x" * 70_000}}, "at most 65536"),
        ({"structured_output": {"choice": []}}, "structured_output.choice"),
        ({"structured_output": {"choise": ["a"]}}, "structured_output.choise"),
        ({"logprobs": {"top": 1, "tokens": ["a"]}}, "give top or tokens"),
        ({"logprobs": {"top": 21}}, "logprobs.top"),
        ({"n": 17}, "params.n"),
        ({"n": 2, "temperature": 0}, "all answers would be the same"),
        ({"min_tokens": 5, "max_tokens": 4}, "more than max_tokens"),
        ({"priority": 101}, "params.priority"),
        ({"adapter": "a" * 257}, "more than 256 bytes"),
        ({"stop": [""]}, "1 to 256 bytes"),
        ({"seed": -1}, "params.seed"),
    ],
)
def test_what_the_service_would_refuse_is_a_fault_of_the_flow(params: dict[str, Any], told: str) -> None:
    assert any(told in fault for fault in faults(asking(**params)))


@pytest.mark.parametrize("port", ["json", "logprobs"])
def test_what_was_not_asked_for_is_no_output(port: str) -> None:
    assert f"the node has no output '{port}'" in faults(asking(port))[0]


def test_what_a_caller_sets_is_checked_as_the_nodes_own_parameters_are() -> None:
    form = {"json_schema": SCHEMA}
    given = caller_sampling({"temperature": 0, "stop": ["."], "structured_output": form, "min_p": 0.5}, "sampling")
    assert (given["temperature"], given["stop"]) == (0, ["."])
    assert given["structured_output"].form().kind == "json_schema"
    for wrong in (
        {"model": "x"},
        {"n": 2},
        {"temperature": 3},
        {"structured_output": {"a": 1}},
        {"stop": "x"},
        {"adapter": "x"},
    ):
        with pytest.raises(InvalidArgument, match="sampling"):
            caller_sampling(wrong, "sampling")
    with pytest.raises(PermissionDenied):
        caller_sampling({"temperature": 0}, "none")


async def test_what_a_caller_sets_holds_for_nodes_that_take_it_and_leaves_their_forms(world: World) -> None:
    set_by_caller = caller_sampling({"temperature": 0.5, "structured_output": {"regex": "a+"}}, "sampling")
    call = Call(sampling=set_by_caller)
    await world.compile(asking(max_tokens=5)).run({"question": "?"}, call=call)
    await world.compile(asking(structured_output={"choice": ["a"]})).run({"question": "?"}, call=call)
    await world.compile(asking(temperature=0.1, caller_sampling=False)).run({"question": "?"}, call=call)
    free, formed, own = world.generator.requests
    assert (free.sampling, free.form) == (Sampling(max_tokens=5, temperature=0.5), Form(kind="regex", value="a+"))
    assert (formed.sampling.temperature, formed.form) == (0.5, Form(kind="choice", value=("a",)))
    assert (own.sampling, own.form) == (Sampling(temperature=0.1), None)


async def test_a_stream_of_an_output_holds_the_text_alone(world: World) -> None:
    parts = [part async for part in FlowRunnable(world.compile(asking("text", "finish_reason"))).astream({"question": "?"})]
    assert "".join(part.get("text", "") for part in parts) == "It was Denver."
    assert [part["finish_reason"] for part in parts if "finish_reason" in part] == [FINISH.reason]
