"""Chat completions, asked for by OpenAI's own client."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from penstock.errors import Overloaded
from tests.gateway.keys import READING, WRITING, keys_file
from tests.gateway.serving import Stack, serving

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
ASK = [{"role": "user", "content": "Where?"}]


async def test_a_flow_answers_as_a_model_does(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="rag", messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.model == "rag"
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.content, choice.finish_reason) == (
        0, "assistant", "Denver", "length",
    )  # fmt: skip
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 2, 7)


async def test_sources_stand_in_the_extension(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="rag", messages=ASK)
    extension = answer.model_extra["penstock"]
    (source,) = extension["sources"]
    assert source == {
        "chunk_id": "c1",
        "document_id": "d1",
        "text": "It was in Denver.",
        "score": 0.5,
        "metadata": {"title": "Denver", "page": 7, "tags": ["a", None]},
        "node_id": "docs",
    }
    assert len(extension["trace_id"]) == 32
    assert answer._request_id == extension["trace_id"]


async def test_a_stream_has_the_same_words_one_token_at_a_time(client: openai.AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await client.chat.completions.create(model="rag", messages=ASK, stream=True)]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Den", "ver", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].model_extra["penstock"]["sources"][0]["chunk_id"] == "c1"


async def test_usage_is_streamed_where_it_is_asked_for(client: openai.AsyncOpenAI) -> None:
    options = {"include_usage": True}
    stream = await client.chat.completions.create(model="rag", messages=ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 7


async def test_the_raw_stream_is_as_openai_frames_it(stack: Stack) -> None:
    body = {"model": "rag", "messages": ASK, "stream": True}
    async with stack.http.post(f"{stack.url}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = (await response.text()).split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events[:-1])
    assert events[-2:] == ["data: [DONE]", ""]


async def test_only_the_model_that_makes_the_answer_is_heard(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="two", messages=ASK, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert texts == ["", "Den", "ver", None]


async def test_a_flow_without_a_model_answers_in_one_piece(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="echo", messages=ASK, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["", "WHERE?", None]


async def test_an_output_that_is_no_text_is_json(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="counting", messages=ASK, extra_body={"penstock": {"inputs": {"n": 3}}})
    assert answer.choices[0].message.content == "3"


async def test_sampling_reaches_the_model(client: openai.AsyncOpenAI, stack: Stack) -> None:
    await client.chat.completions.create(
        model="rag", messages=ASK, temperature=0.5, top_p=0.9, max_completion_tokens=7, stop=["\n"], seed=3,
        presence_penalty=0.25, frequency_penalty=-0.5, extra_body={"top_k": 5},
    )  # fmt: skip
    sampling = stack.generation.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens, list(sampling.stop), sampling.seed) == (0.5, 7, ["\n"], 3)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.top_k) == (0.25, -0.5, 5)
    assert sampling.top_p == pytest.approx(0.9)


async def test_several_answers_are_several_runs(client: openai.AsyncOpenAI, stack: Stack) -> None:
    answer = await client.chat.completions.create(model="rag", messages=ASK, n=3)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (0, "Denver"),
        (1, "Denver"),
        (2, "Denver"),
    ]
    assert answer.usage.completion_tokens == 6
    assert len(stack.generation.requests) == 3


async def test_what_many_clients_send_and_nothing_depends_on_is_passed_over(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="rag", messages=ASK, user="ann", store=False, service_tier="auto", logprobs=False, metadata={"a": "b"},
        prompt_cache_key="k", safety_identifier="s", logit_bias={}, parallel_tool_calls=True, n=1,
    )  # fmt: skip
    assert answer.choices[0].message.content == "Denver"


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"logprobs": True}, "logprobs", "would change the answer"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "would change the answer"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "would change the answer"),
        ({"extra_body": {"temprature": 1}}, "temprature", "did you mean 'temperature'?"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "must be a number"),
        ({"max_completion_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"n": 9}, "n", "from 1 to 8"),
        ({"n": 2, "stream": True}, "n", "in a stream"),
        ({"tools": TOOLS}, "tools", '"tools": "caller"'),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "by its name"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type", "is function"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "not 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "must be an object"),
        ({"messages": []}, "messages", "no message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no message of the user"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty text"),
        ({"messages": [{"role": "clown", "content": "x"}]}, "messages[0].role", "not 'clown'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "text alone",
        ),
        ({"extra_body": {"penstock": {"inputs": {"colour": "red"}}}}, "penstock.inputs.colour", "no input"),
        ({"extra_body": {"penstock": {"inputs": {"question": "x"}}}}, "penstock.inputs.question", "last message"),
        ({"model": "counting"}, "penstock.inputs.n", "missing"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_the_parameters_name(
    client: openai.AsyncOpenAI, options: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**{"model": "rag", "messages": ASK, **options})
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert says in caught.value.message


async def test_failures_are_the_clients_own_classes(client: openai.AsyncOpenAI, stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError, match="no flow 'none'") as missing:
        await client.chat.completions.create(model="none", messages=ASK)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="a/b?c", messages=ASK)
    with pytest.raises(openai.PermissionDeniedError, match='"overrides" is "none"'):
        await client.chat.completions.create(model="closed", messages=ASK, temperature=0)
    stack.retrieval.error = Overloaded("full", retry_after_s=2.5)
    with pytest.raises(openai.RateLimitError, match="full") as full:
        await client.chat.completions.create(model="rag", messages=ASK)
    assert (full.value.code, full.value.response.headers["retry-after"]) == ("rate_limit_exceeded", "3")
    stack.retrieval.error = ZeroDivisionError("secret")
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model="rag", messages=ASK, stream=True)
    assert broken.value.type == "server_error"
    assert "secret" not in broken.value.message


async def test_what_fails_in_the_middle_of_a_stream_is_an_error_in_the_stream(client: openai.AsyncOpenAI, stack: Stack) -> None:
    async def fail(index: int) -> None:
        if index == 1:
            raise Overloaded("full")

    stack.generation.before = fail
    heard = []
    with pytest.raises(openai.APIError, match="full") as caught:
        async for chunk in await client.chat.completions.create(model="rag", messages=ASK, stream=True):
            heard.append(chunk.choices[0].delta.content)
    assert heard == ["", "Den"]
    assert caught.value.code == "rate_limit_exceeded"


async def test_a_client_that_leaves_a_stream_stops_the_models_work(client: openai.AsyncOpenAI, stack: Stack) -> None:
    async def stall(index: int) -> None:
        if index == 1:
            await asyncio.sleep(30)

    stack.generation.before = stall
    stream = await client.chat.completions.create(model="rag", messages=ASK, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await asyncio.wait_for(stack.generation.closed.wait(), 5)


async def test_the_sync_client_works_as_well(stack: Stack) -> None:
    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=10) as client:
            whole = client.chat.completions.create(model="rag", messages=ASK).choices[0].message.content
            stream = client.chat.completions.create(model="rag", messages=ASK, stream=True)
            return whole, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == ("Denver", "Denver")


async def test_keys_are_asked_for_before_anything_is_looked_at(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, api_keys_file=keys_file(tmp_path)) as stack,
        openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="psk_unknown", max_retries=0, timeout=10) as client,
    ):
        for more in ({}, {"temprature": 1}, {"stream": True}):
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(model="none", messages=ASK, extra_body=more)
            assert caught.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                await client.responses.create(model="none", input="x", extra_body=more)
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
        with pytest.raises(openai.PermissionDeniedError):
            await client.with_options(api_key=WRITING).models.list()
        with pytest.raises(openai.NotFoundError):
            await client.with_options(api_key=READING).chat.completions.create(model="none", messages=ASK)


@pytest.mark.parametrize(
    "said",
    [
        {"extra_body": {"penstock": {"session": "s1"}}},
        {"extra_headers": {"x-penstock-session": "s1"}},
        {"metadata": {"session_id": "s1"}},
    ],
)
async def test_a_session_is_remembered_by_the_flow(client: openai.AsyncOpenAI, said: dict[str, Any]) -> None:
    for text, before in (("one", ""), ("two", "user: one")):
        answer = await client.chat.completions.create(model="memory", messages=[{"role": "user", "content": text}], **said)
        assert answer.choices[0].message.content == before
        assert answer.model_extra["penstock"]["session"] == "s1"


async def test_turns_that_are_sent_are_the_conversation_and_user_is_no_session(client: openai.AsyncOpenAI) -> None:
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "1"}]},
        {"role": "user", "content": "two"},
    ]
    answer = await client.chat.completions.create(model="memory", messages=turns, metadata={"session_id": "s1"})
    assert answer.choices[0].message.content == "system: be brief\nuser: one\nassistant: 1"
    for _ in range(2):
        answer = await client.chat.completions.create(model="memory", messages=ASK, user="ann")
        assert answer.choices[0].message.content == ""


async def test_other_inputs_and_nodes_parameters_are_set_in_the_extension(client: openai.AsyncOpenAI, stack: Stack) -> None:
    extension = {"inputs": {"language": "de"}}
    answer = await client.chat.completions.create(model="two", messages=ASK, extra_body={"penstock": extension})
    assert answer.model_extra["penstock"]["outputs"] == {"rewritten": "Denver"}
    assert stack.generation.requests[-1].messages[0].content == "Denver in de"
    extension = {"overrides": {"docs": {"top_k": 1}}}
    await client.chat.completions.create(model="open", messages=ASK, extra_body={"penstock": extension})
    assert stack.retrieval.requests[-1].top_k == 1
    with pytest.raises(openai.PermissionDeniedError):
        await client.chat.completions.create(model="rag", messages=ASK, extra_body={"penstock": extension})


async def test_a_branch_that_was_taken_answers_and_streams(client: openai.AsyncOpenAI) -> None:
    for text, spoken in (("long question", ["", "Den", "ver", None]), ("hi", ["", "Too short.", None])):
        messages = [{"role": "user", "content": text}]
        answer = await client.chat.completions.create(model="branching", messages=messages)
        assert answer.choices[0].message.content == "".join(each or "" for each in spoken)
        stream = await client.chat.completions.create(model="branching", messages=messages, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == spoken
