"""Responses, asked for by OpenAI's own client."""

from typing import Any

import openai
import pytest

from penstock.errors import Overloaded
from tests.gateway.serving import Stack


async def test_a_flow_answers_a_text(client: openai.AsyncOpenAI, stack: Stack) -> None:
    answer = await client.responses.create(model="open", input="Where?", metadata={"a": "b"}, temperature=0.5)
    assert answer.object == "response"
    assert answer.output_text == "Denver"
    assert (answer.model, answer.metadata, answer.temperature, answer.error) == ("open", {"a": "b"}, 0.5, None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 2, 7)
    (item,) = answer.output
    assert (item.type, item.role) == ("message", "assistant")
    assert answer.model_extra["penstock"]["sources"][0]["document_id"] == "d1"
    assert stack.generation.requests[0].sampling.temperature == 0.5


async def test_an_answer_that_was_cut_is_incomplete(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="rag", input="Where?", max_output_tokens=2)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[0].status == "incomplete"


async def test_a_stream_has_openais_events_in_order(client: openai.AsyncOpenAI) -> None:
    events = [event async for event in await client.responses.create(model="rag", input="Where?", stream=True)]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["Den", "ver"]
    assert {type(event).__name__ for event in events} >= {"ResponseTextDeltaEvent", "ResponseCompletedEvent"}
    last = events[-1].response
    assert (last.status, last.output_text, last.usage.total_tokens) == ("completed", "Denver", 7)
    assert last.id == events[0].response.id
    assert last.output[0].id == events[4].item_id
    assert last.model_extra["penstock"]["sources"][0]["chunk_id"] == "c1"


async def test_the_clients_own_stream_helper_follows(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="rag", input="Where?") as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_response()).output_text == "Denver"


async def test_a_flow_without_a_model_streams_its_text_in_one_piece(client: openai.AsyncOpenAI) -> None:
    events = [event async for event in await client.responses.create(model="echo", input="a", stream=True)]
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["A"]
    assert events[-1].response.output_text == "A"


async def test_a_response_goes_on_from_any_earlier_one(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model="turns", input="one", instructions="be brief")
    assert first.output_text == "system: be brief"
    second = await client.responses.create(model="turns", input="two", previous_response_id=first.id)
    assert second.output_text == "user: one\nassistant: system: be brief"
    assert second.previous_response_id == first.id
    stream = await client.responses.create(model="turns", input="three", previous_response_id=second.id, stream=True)
    third = [event async for event in stream][-1].response
    assert third.output_text == f"{second.output_text}\nuser: two\nassistant: {second.output_text}"
    other = await client.responses.create(model="turns", input="another two", previous_response_id=first.id)
    assert other.output_text == second.output_text
    fourth = await client.responses.create(model="turns", input="four", previous_response_id=third.id)
    assert fourth.output_text.startswith(third.output_text)


async def test_what_was_not_stored_cannot_be_gone_on_from(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="echo", input="one", store=False)
    for unknown in (answer.id, "resp_", "x" * 1000):
        with pytest.raises(openai.BadRequestError, match="is kept here") as caught:
            await client.responses.create(model="echo", input="two", previous_response_id=unknown)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_items_are_the_turns_of_the_conversation(client: openai.AsyncOpenAI) -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "How "}, {"type": "input_text", "text": "warm?"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call_output", "call_id": "c", "output": "3 degrees"},
    ]
    answer = await client.responses.create(model="turns", input=items)
    assert answer.output_text == (
        "system: be brief\nuser: How warm?\n"
        'assistant: <tool_call>\n{"name":"weather","arguments":{"city":"Oslo"}}\n</tool_call>\n'
        "tool: 3 degrees"
    )


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"background": True}, "background", "would change the answer"),
        ({"reasoning": {"effort": "high"}}, "reasoning", "would change the answer"),
        ({"conversation": "conv_1"}, "conversation", "would change the answer"),
        ({"extra_body": {"stop": ["x"]}}, "stop", "not a parameter"),
        ({"input": []}, "input", "at least one"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "function_call_output"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "text",
        ),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input", "no message of the user"),
        ({"input": " "}, "input", "empty text"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "is function"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools", '"tools": "caller"'),
        ({"max_output_tokens": "many"}, "max_output_tokens", "must be a number"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "must be an object"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_the_parameters_name(
    client: openai.AsyncOpenAI, options: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**{"model": "rag", "input": "Where?", **options})
    assert caught.value.param == param
    assert says in caught.value.message


async def test_what_fails_in_the_middle_of_a_stream_ends_it_as_failed(client: openai.AsyncOpenAI, stack: Stack) -> None:
    async def fail(index: int) -> None:
        if index == 1:
            raise Overloaded("full")

    stack.generation.before = fail
    events = [event async for event in await client.responses.create(model="rag", input="Where?", stream=True)]
    assert events[-1].type == "response.failed"
    assert (events[-1].response.status, events[-1].response.error.code) == ("failed", "rate_limit_exceeded")
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_what_fails_before_a_word_is_said_is_an_http_error(client: openai.AsyncOpenAI, stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="none", input="x", stream=True)
    stack.retrieval.error = Overloaded("full")
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="rag", input="x", stream=True)
