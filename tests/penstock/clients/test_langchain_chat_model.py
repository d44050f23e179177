"""What the chat model asks of the service, and what it makes of the answers, beyond langchain-core's standard tests."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from generation_svc.engine import Feature, GenerationRequest, Role
from penstock.clients.generation import LogprobOptions, StructuredOutput
from penstock.clients.langchain import PenstockChatModel
from penstock.errors import EngineFailed, InvalidArgument, Overloaded
from tests.generation_svc.fakes import FakeEngine
from tests.penstock.clients.generation_service import FormEngine, generation_service


class Faltering(FormEngine):
    """Has no room for the first `refusals` requests, or loses its words after the first."""

    refusals = 0
    breaks = False

    async def generate(self, request: GenerationRequest) -> Any:
        if self.refusals:
            self.refusals -= 1
            self.requests.append(request)
            raise Overloaded("full", retry_after_s=0.01)
        async for part in super().generate(request):
            yield part
            if self.breaks:
                raise EngineFailed("gone")


@pytest.fixture
def engine() -> Faltering:
    return Faltering()


@pytest.fixture
def model(engine: Faltering) -> Iterator[PenstockChatModel]:
    with generation_service(engine) as target, PenstockChatModel(target=target) as opened:
        yield opened


@tool
def weather(city: str) -> str:
    """How warm it is in a city."""
    return f"3 degrees in {city}"


@tool
def clock() -> str:
    """What time it is."""
    return "noon"


class Joke(BaseModel):
    """A joke."""

    setup: str
    funny: bool


def test_the_whole_request_can_be_asked_for(model: PenstockChatModel, engine: FakeEngine) -> None:
    asked = model.bind(
        min_p=0.1, repetition_penalty=1.2, min_tokens=2, max_tokens=9, include_stop=True, adapter="legal", priority=-3,
        cache_salt="mine", logprobs={"tokens": ["one"]}, structured_output={"choice": ("yes", "no")}, seed=4,
    )  # fmt: skip
    assert asked.invoke("hi").content == "yes"
    (got,) = engine.requests
    assert (got.sampling.min_p, got.sampling.repetition_penalty, got.sampling.min_tokens) == pytest.approx((0.1, 1.2, 2))
    assert (got.adapter, got.priority, got.sampling.include_stop) == ("legal", -3, True)
    assert got.logprobs.tokens == ("one",)
    assert got.structured_output.choices == ("yes", "no")
    assert got.cache_salt


def test_logprobs_stand_in_the_metadata(model: PenstockChatModel) -> None:
    answer = model.bind(logprobs=True).invoke("hi")
    assert "logprobs" not in answer.response_metadata  # This engine gives none, and none is made up.


def test_several_answers_are_several_generations(model: PenstockChatModel, engine: FakeEngine) -> None:
    generations = model.generate([[HumanMessage("hi")]], n=2).generations[0]
    assert [each.text for each in generations] == ["one two three four five"] * 2
    assert generations[0].message.usage_metadata["output_tokens"] == 10
    assert generations[1].message.usage_metadata is None
    with pytest.raises(InvalidArgument, match="a stream has one answer"):
        list(model.bind(n=2).stream("hi"))


def test_tools_are_told_of_and_the_answer_is_held_to_calls_of_them(model: PenstockChatModel, engine: FakeEngine) -> None:
    answer = model.bind_tools([weather, clock]).invoke("Oslo")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"city": "Oslo"})]
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("", "tool_calls")
    (asked,) = engine.requests
    assert asked.messages[0].role is Role.SYSTEM
    assert "How warm it is in a city." in asked.messages[0].content
    assert asked.structured_output.kind is Feature.JSON_SCHEMA


def test_a_streamed_call_adds_up_and_its_json_is_not_text(model: PenstockChatModel) -> None:
    chunks = list(model.bind_tools([weather]).stream("Oslo"))
    assert "".join(chunk.content for chunk in chunks) == ""
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "Oslo"})]


def test_what_a_tool_gave_goes_back_and_the_text_is_streamed(model: PenstockChatModel, engine: FakeEngine) -> None:
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    engine.pause_s = 0.005
    turns = [HumanMessage("Oslo?"), AIMessage("", tool_calls=[call]), ToolMessage("3 degrees", tool_call_id="c1")]
    chunks = list(model.bind_tools([weather]).stream(turns))
    texts = [chunk.content for chunk in chunks if chunk.content]
    assert "".join(texts) == "weather answered:\n3 degrees"
    assert len(texts) > 2
    said = [message.content for message in engine.requests[0].messages[1:]]
    assert json.loads(said[1]) == {"calls": [{"tool": "weather", "arguments": {"city": "Oslo"}}]}
    assert said[2] == "weather answered:\n3 degrees"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("any", ["weather"]),
        ("clock", ["clock"]),
        ({"type": "function", "function": {"name": "clock"}}, ["clock"]),
        ("none", []),
    ],
)
def test_a_choice_of_tools_is_kept_to(model: PenstockChatModel, choice: Any, called: list[str]) -> None:
    answer = model.bind_tools([weather, clock], tool_choice=choice).invoke("Oslo")
    assert [call["name"] for call in answer.tool_calls] == called


def test_a_choice_that_is_none_of_the_tools_is_told_when_it_is_bound(model: PenstockChatModel) -> None:
    with pytest.raises(InvalidArgument, match=r"weather, clock\); not 'cook'"):
        model.bind_tools([weather, clock], tool_choice="cook")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_instance(model: PenstockChatModel, method: Any) -> None:
    assert model.with_structured_output(Joke, method=method).invoke("Why?") == Joke(setup="Why?", funny=True)
    both = model.with_structured_output(Joke, method=method, include_raw=True).invoke("Why?")
    assert both["parsed"] == Joke(setup="Why?", funny=True)
    assert (isinstance(both["raw"], AIMessage), both["parsing_error"]) == (True, None)


def test_what_cannot_be_read_is_told_beside_the_raw_message(model: PenstockChatModel) -> None:
    both = model.with_structured_output(Joke, method="json_mode", include_raw=True).invoke("Why?")
    assert both["parsed"] is None
    assert "funny" in str(both["parsing_error"])


def test_a_model_may_have_a_form_for_all_its_answers(model: PenstockChatModel, engine: FakeEngine) -> None:
    formed = model.model_copy(
        update={"structured_output": StructuredOutput(json_object=True), "logprobs": LogprobOptions(top=2)}
    )
    assert json.loads(formed.invoke("x").content) == {"setup": "Why?", "punchline": "x"}
    with pytest.raises(InvalidArgument, match="leave one out"):
        formed.bind_tools([weather]).invoke("x")
    with pytest.raises(InvalidArgument, match="structured_output has one of"):
        model.invoke("x", structured_output={"xml": True})
    with pytest.raises(InvalidArgument, match="logprobs is true"):
        model.invoke("x", logprobs={"topp": 1})


def test_an_answer_that_has_not_begun_is_asked_for_again(model: PenstockChatModel, engine: Faltering) -> None:
    patient = model.model_copy(update={"max_retries": 2})
    engine.refusals = 2
    assert patient.invoke("hi").content == "one two three four five"
    engine.refusals = 1
    assert "".join(chunk.content for chunk in patient.stream("hi")) == "one two three four five"
    engine.refusals = 3
    with pytest.raises(Overloaded):
        patient.invoke("hi")
    engine.refusals = 1
    with pytest.raises(Overloaded):
        model.invoke("hi")


def test_an_answer_that_has_begun_is_not_asked_for_again(model: PenstockChatModel, engine: Faltering) -> None:
    engine.breaks = True
    stream = model.model_copy(update={"max_retries": 5}).stream("hi")
    assert next(stream).content == "one t"
    with pytest.raises(EngineFailed):
        next(stream)
    assert len(engine.requests) == 1
