"""Tools of the caller: what a model is told of them, and how its calls are found in what it says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends import Answer, Delta
from gateway.execution import Call, RunResult, Token, Tool, ToolCall
from gateway.nodes.calling import Found, Holdback, found, written
from gateway.nodes.generate import caller_sampling
from gateway.validation import examine
from penstock.errors import InvalidArgument
from tests.gateway.fakes import FINISH, World, document, node

WEATHER = Tool(name="weather", description="Tells the weather.", parameters={"type": "object", "properties": {"city": {}}})
CLOCK = Tool(name="clock", description="", parameters={})
TOOLS = (WEATHER, CLOCK)
CALLING = document(
    node("question", "input"), node("model", "generate", system="Be kind.", tools="caller"), node("answer", "output"),
    node("calls", "output"), node("why", "output"),
    edges=["question > model", "model > answer", "model.tool_calls > calls", "model.finish_reason > why"],
)  # fmt: skip
ASKED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Denver"}}\n</tool_call>'
WANTED = ToolCall(name="weather", arguments='{"city":"Denver"}')


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        ("It is cold.", "It is cold.", ()),
        (" It is cold. \n", " It is cold. \n", ()),
        (ASKED, "", (WANTED,)),
        (f"I look.\n{ASKED}", "I look.", (WANTED,)),
        (f"{ASKED}\n{ASKED}", "", (WANTED, WANTED)),
        (f"A {ASKED} B {ASKED} C", "A  B  C", (WANTED, WANTED)),
        (ASKED.removesuffix("</tool_call>"), "", (WANTED,)),
        ('<tool_call>{"name": "clock"}</tool_call>', "", (ToolCall(name="clock", arguments="{}"),)),
        ('<tool_call>{"name": "clock", "arguments": "{\\"at\\": 1}"}', "", (ToolCall(name="clock", arguments='{"at":1}'),)),
        ('<tool_call>{"name": "bomb", "arguments": {}}</tool_call>', None, ()),
        ('<tool_call>{"name": "clock", "arguments": [1]}</tool_call>', None, ()),
        ('<tool_call>{"name": "clock", "arguments": ' + '{"a":' * 40 + "1" + "}" * 41 + "</tool_call>", None, ()),
        ("<tool_call>clock()</tool_call>", None, ()),
        ("<tool_call>", None, ()),
        ("a </tool_call> b", None, ()),
        (f"<tool_call>x</tool_call>{ASKED}", "<tool_call>x</tool_call>", (WANTED,)),
    ],
)  # fmt: skip
def test_calls_of_known_tools_leave_the_text_and_all_else_stays(
    answer: str, text: str | None, calls: tuple[ToolCall, ...]
) -> None:
    assert found(answer, TOOLS) == Found(text=answer if text is None else text, calls=calls)


def test_a_call_that_was_written_is_found_again() -> None:
    text = written("weather", {"city": "Ü", "n": [1, None]})
    assert found(text, TOOLS) == Found(text="", calls=(ToolCall(name="weather", arguments='{"city":"Ü","n":[1,null]}'),))


def test_calls_of_one_answer_are_bounded() -> None:
    many = found(ASKED * 100, TOOLS)
    assert len(many.calls) == 64
    assert many.text == ASKED * 36


PIECES = st.lists(
    st.sampled_from(["<tool", "_call>", "</tool_call>", ASKED, " ", "\n", "a", "<", "It is", '{"name"']), max_size=12
)


@given(PIECES, st.integers(1, 7))
def test_a_stream_tells_exactly_the_text_whatever_its_pieces(pieces: list[str], size: int) -> None:
    answer = "".join(pieces)
    holdback = Holdback()
    told = "".join(holdback.let_through(answer[at : at + size]) for at in range(0, len(answer), size))
    text = found(answer, TOOLS).text
    assert len(told) == holdback.passed
    assert text.startswith(told)
    assert told + text[holdback.passed :] == text


async def test_a_model_is_told_of_the_tools_and_its_calls_are_the_runs(world: World) -> None:
    world.generator.answer = Answer(text=f"I look.\n{ASKED}", finish=FINISH)
    result = await world.compile(CALLING).run({"question": "Cold?"}, call=Call(tools=TOOLS))
    assert result.outputs == {
        "answer": "I look.", "calls": [{"name": "weather", "arguments": {"city": "Denver"}}], "why": "tool_calls",
    }  # fmt: skip
    assert (result.tool_calls, result.finish_reason) == ((WANTED,), "tool_calls")
    system = world.generator.requests[0].system
    assert system.startswith("Be kind.\n\n")
    lines = [json.loads(line) for line in system.splitlines() if line.startswith('{"type"')]
    assert lines[0]["function"] == {
        "name": "weather", "description": "Tells the weather.", "parameters": dict(WEATHER.parameters),
    }  # fmt: skip
    assert [line["function"]["name"] for line in lines] == ["weather", "clock"]
    assert '\n{"name": <name>, "arguments": <arguments>}\n' in system


async def test_without_tools_or_calls_nothing_is_changed(world: World) -> None:
    for tools in ((), TOOLS):
        result = await world.compile(CALLING).run({"question": "Cold?"}, call=Call(tools=tools))
        assert result.outputs == {"answer": "It was Denver.", "calls": [], "why": "stop"}
        assert (result.tool_calls, result.finish_reason) == ((), "stop")
    assert [len(request.system) > 20 for request in world.generator.requests] == [False, True]
    plain = CALLING.replace('"tools": "caller"', '"tools": "none"').replace("model.tool_calls", "model.texts")
    world.generator.answer = Answer(text=ASKED, finish=FINISH)
    result = await world.compile(plain).run({"question": "Cold?"}, call=Call(tools=TOOLS))
    assert (result.outputs["answer"], result.tool_calls) == (ASKED, ())


async def test_calls_are_not_told_as_tokens(world: World) -> None:
    text = f"I look.\n{ASKED}"
    world.generator.parts = [*(Delta(text=text[at : at + 3]) for at in range(0, len(text), 3)), FINISH]
    events = [event async for event in world.compile(CALLING).events({"question": "Cold?"}, call=Call(tools=TOOLS))]
    assert "".join(event.text for event in events if isinstance(event, Token)) == "I look."
    assert isinstance(events[-1], RunResult)
    assert events[-1].tool_calls == (WANTED,)


async def test_what_only_looked_like_a_call_is_told_in_the_end(world: World) -> None:
    world.generator.parts = [Delta(text="a <tool_"), Delta(text="call> b"), FINISH]
    events = [event async for event in world.compile(CALLING).events({"question": "Cold?"}, call=Call(tools=TOOLS))]
    assert [event.text for event in events if isinstance(event, Token)] == ["a", " <tool_call> b"]


async def test_a_form_and_tools_are_not_asked_for_together(world: World) -> None:
    call = Call(tools=TOOLS, sampling=caller_sampling({"structured_output": {"json_object": True}}, "sampling"))
    with pytest.raises(InvalidArgument, match="not both"):
        await world.compile(CALLING).run({"question": "Cold?"}, call=call)


@pytest.mark.parametrize("params", [{"raw": True}, {"n": 2}, {"structured_output": {"json_object": True}}])
def test_what_cannot_call_tools_is_a_fault(params: dict[str, Any]) -> None:
    flow = document(
        node("q", "input"), node("m", "generate", tools="caller", **params), node("o", "output"), edges=["q > m", "m > o"]
    )
    assert any("a model that may call tools" in str(fault) for fault in examine(flow)[1])
