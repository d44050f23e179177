"""Tools and forms of answers, through OpenAI's own client and LangChain's ChatOpenAI."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from penstock.generation.v1 import generation_pb2
from tests.gateway.serving import Stack

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "How warm it is.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
ASK = [{"role": "user", "content": "How warm is it in Oslo?"}]
CALLING = ("Let me see.", "\n<tool_", 'call>\n{"name": "weather", "argu', 'ments": {"city": "Oslo"}}\n</tool_call>')
MUST = {"type": "function", "function": {"name": "weather"}}


@tool
def weather(city: str) -> str:
    """How warm it is."""
    return f"3 degrees in {city}"


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@pytest.fixture
async def chat(stack: Stack) -> AsyncIterator[ChatOpenAI]:
    async with openai.DefaultAsyncHttpxClient() as http:
        yield ChatOpenAI(
            model="assistant",
            base_url=f"{stack.url}/v1",
            api_key=SecretStr("none"),
            max_retries=0,
            timeout=10,
            stream_usage=True,
            http_async_client=http,
        )


async def test_a_model_asks_for_a_call(client: openai.AsyncOpenAI, stack: Stack) -> None:
    stack.generation.words = CALLING
    answer = await client.chat.completions.create(model="assistant", messages=ASK, tools=TOOLS)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "weather", {"city": "Oslo"})
    assert "How warm it is." in stack.generation.requests[0].messages[0].content


async def test_a_streamed_call_is_pieces_that_add_up(client: openai.AsyncOpenAI, stack: Stack) -> None:
    stack.generation.words = CALLING
    stream = await client.chat.completions.create(model="assistant", messages=ASK, tools=TOOLS, stream=True)
    deltas = [(chunk.choices[0].delta, chunk.choices[0].finish_reason) async for chunk in stream]
    assert "".join(delta.content or "" for delta, _ in deltas) == "Let me see."
    (call,) = [call for delta, _ in deltas for call in delta.tool_calls or ()]
    assert (call.index, call.function.name, json.loads(call.function.arguments)) == (0, "weather", {"city": "Oslo"})
    assert deltas[-1][1] == "tool_calls"


async def test_what_a_tool_gave_goes_back_to_the_model(client: openai.AsyncOpenAI, stack: Stack) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    turns = [*ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "3 degrees"}]
    await client.chat.completions.create(model="assistant", messages=turns, tools=TOOLS)
    said = [message.content for message in stack.generation.requests[0].messages[1:]]
    assert said[0] == said[-1] == ASK[0]["content"]
    assert said[1] == '<tool_call>\n{"name":"weather","arguments":{"city":"Oslo"}}\n</tool_call>'
    assert "3 degrees" in said[2]


@pytest.mark.parametrize("choice", ["required", MUST])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_that_must_be_made_is_the_answers_form(
    client: openai.AsyncOpenAI, stack: Stack, choice: Any, streams: bool
) -> None:
    stack.generation.words = ('{"calls": [{"tool": "weather", ', '"arguments": {"city": "Oslo"}}]}')
    asked: dict[str, Any] = {"model": "assistant", "messages": ASK, "tools": TOOLS, "tool_choice": choice}
    if streams:
        async with client.chat.completions.stream(**asked) as stream:
            answer = await stream.get_final_completion()
    else:
        answer = await client.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert not answer.choices[0].message.content
    form = json.loads(stack.generation.requests[0].structured_output.json_schema)
    assert form["properties"]["calls"]["items"]["properties"]["arguments"] == PARAMETERS


async def test_responses_have_calls_as_items(client: openai.AsyncOpenAI, stack: Stack) -> None:
    stack.generation.words = CALLING
    tools = [{"type": "function", **WEATHER}]
    first = await client.responses.create(model="assistant", input=ASK[0]["content"], tools=tools)
    message, call = first.output
    assert (message.type, call.type, call.name, json.loads(call.arguments)) == (
        "message", "function_call", "weather", {"city": "Oslo"},
    )  # fmt: skip
    stack.generation.words = ("3 ", "degrees.")
    given = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"}]
    second = await client.responses.create(model="assistant", input=given, tools=tools, previous_response_id=first.id)
    assert second.output_text == "3 degrees."
    said = [message.content for message in stack.generation.requests[1].messages]
    assert [text for text in said if "<tool_call>" in text and "Oslo" in text]
    assert said[-1] == ASK[0]["content"]
    stack.generation.words = CALLING
    stream = await client.responses.create(model="assistant", input="x", tools=tools, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events if "function_call" in event.type] == [
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
    ]  # fmt: skip
    assert [item.type for item in events[-1].response.output] == ["message", "function_call"]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_one_call_at_most_where_that_is_asked(client: openai.AsyncOpenAI, stack: Stack) -> None:
    stack.generation.words = CALLING + CALLING[1:]
    for parallel, count in ((True, 2), (False, 1)):
        answer = await client.chat.completions.create(
            model="assistant", messages=ASK, tools=TOOLS, parallel_tool_calls=parallel
        )
        assert len(answer.choices[0].message.tool_calls) == count


async def test_an_answer_is_held_to_a_schema_whose_order_is_kept(client: openai.AsyncOpenAI, stack: Stack) -> None:
    stack.generation.words, stack.generation.whole_ends_by = ('{"name": "Ann", ', '"age": 3}'), "FINISH_REASON_STOP"
    answer = await client.chat.completions.parse(model="rag", messages=ASK, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ann", age=3)
    form = stack.generation.requests[0].structured_output
    assert list(json.loads(form.json_schema)["properties"]) == ["name", "age"]
    parsed = await client.responses.parse(model="rag", input="Who?", text_format=Person)
    assert parsed.output_parsed == Person(name="Ann", age=3)
    await client.chat.completions.create(model="rag", messages=ASK, response_format={"type": "json_object"})
    assert stack.generation.requests[2].structured_output == generation_pb2.StructuredOutput(json_object=True)


async def test_a_form_that_would_be_that_of_several_answers_is_refused(client: openai.AsyncOpenAI, stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError, match="asks models more than once") as caught:
        await client.chat.completions.create(model="two", messages=ASK, response_format={"type": "json_object"})
    assert caught.value.param == "response_format"
    await client.chat.completions.create(model="inner", messages=ASK, response_format={"type": "json_object"})
    first, second = stack.generation.requests
    assert not first.HasField("structured_output")
    assert second.structured_output.json_object


async def test_langchains_model_chats_streams_calls_tools_and_keeps_to_forms(chat: ChatOpenAI, stack: Stack) -> None:
    assert (await chat.ainvoke("Where?")).content == "Denver"
    chunks = [chunk async for chunk in chat.astream("Where?")]
    assert "".join(chunk.text for chunk in chunks) == "Denver"
    assert sum((chunk.usage_metadata or {}).get("total_tokens", 0) for chunk in chunks) == 7
    stack.generation.words = CALLING
    with_tools = chat.bind_tools([weather])
    asked = await with_tools.ainvoke("How warm is it in Oslo?")
    assert [(call["name"], call["args"]) for call in asked.tool_calls] == [("weather", {"city": "Oslo"})]
    streamed: Any = None
    async for chunk in with_tools.astream("How warm is it in Oslo?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [("weather", {"city": "Oslo"})]
    stack.generation.words = ("Chilly.",)
    turns = [HumanMessage("How warm?"), asked, ToolMessage("3", tool_call_id=asked.tool_calls[0]["id"])]
    assert (await with_tools.ainvoke(turns)).content == "Chilly."
    stack.generation.words, stack.generation.whole_ends_by = ('{"name": "Ann", ', '"age": 3}'), "FINISH_REASON_STOP"
    assert await chat.with_structured_output(Person).ainvoke("Who?") == Person(name="Ann", age=3)
    stack.generation.words = ('{"calls": [{"tool": "Person", "arguments": {"name": "Ann", "age": 3}}]}',)
    assert await chat.with_structured_output(Person, method="function_calling").ainvoke("Who?") == Person(name="Ann", age=3)


async def test_langchains_model_uses_responses_as_well(chat: ChatOpenAI, stack: Stack) -> None:
    over_responses = chat.model_copy(update={"use_responses_api": True, "use_previous_response_id": True})
    first = await over_responses.ainvoke("one")
    assert first.text == "Denver"
    second = await over_responses.ainvoke([HumanMessage("one"), first, HumanMessage("two")])
    assert isinstance(second, AIMessage)
    said = [message.content for message in stack.generation.requests[1].messages]
    assert said == ["one", "Denver", "two"]
    chunks = [chunk async for chunk in over_responses.astream("three")]
    assert "".join(chunk.text for chunk in chunks) == "Denver"
