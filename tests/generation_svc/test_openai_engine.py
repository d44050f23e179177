import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from generation_svc.engine import FinishReason, GenerationRequest, Usage
from penstock.errors import (
    BackendUnavailable,
    FailedPrecondition,
    InvalidArgument,
    ModelNotFound,
    Overloaded,
    PenstockError,
    PromptTooLong,
)
from tests.generation_svc.fakes import ask, collect
from tests.generation_svc.openai_endpoint import ANSWER, DONE, answering, chunk, endpoint_settings, engine_over, sse


async def test_a_streamed_answer_is_read_event_by_event() -> None:
    async with engine_over(sse(*ANSWER)) as engine:
        deltas, finished = await collect(engine.generate(ask()))
    assert [delta.text for delta in deltas] == ["A pi", "pe."]
    assert finished.finish_reason is FinishReason.STOP
    assert finished.usage == Usage(input_tokens=9, output_tokens=4, cached_tokens=3)


async def test_a_whole_answer_is_asked_for_when_the_caller_does_not_stream() -> None:
    asked: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(await request.json())
        choice = {"message": {"content": "A pipe."}, "finish_reason": "length", "stop_reason": None}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})

    async with engine_over(handle) as engine:
        (delta,), finished = await collect(engine.generate(ask(streamed=False, temperature=0.5, top_k=3, stop=("x",))))
    assert (delta.text, delta.token_count) == ("A pipe.", 4)
    assert finished.finish_reason is FinishReason.LENGTH
    assert asked == [
        {
            "model": "upstream",
            "max_tokens": 512,
            "messages": [{"role": "user", "content": "What is a penstock?"}],
            "temperature": 0.5,
            "top_k": 3,
            "stop": ["x"],
        }
    ]


async def test_a_raw_prompt_goes_to_completions() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/completions"
        assert (await request.json())["prompt"] == "Once"
        text = b'data: {"choices":[{"text":" upon","finish_reason":"stop","stop_reason":"END"}]}\n\n'
        return await sse(text, DONE)(request)

    async with engine_over(handle) as engine:
        (delta,), finished = await collect(engine.generate(GenerationRequest(prompt="Once")))
    assert delta.text == " upon"
    assert finished.matched_stop == "END"


async def test_bytes_may_be_cut_anywhere_and_lines_end_in_crlf() -> None:
    wire = b": keep-alive\r\n\r\n" + b"".join(ANSWER).replace(b"\n", b"\r\n")
    async with engine_over(sse(*(wire[i : i + 7] for i in range(0, len(wire), 7)))) as engine:
        deltas, _ = await collect(engine.generate(ask()))
    assert "".join(delta.text for delta in deltas) == "A pipe."


async def test_a_text_in_many_bytes_and_scripts_comes_through() -> None:
    async with engine_over(sse(chunk("héllo 😀"), chunk("你好", finish_reason="stop"), DONE)) as engine:
        deltas, finished = await collect(engine.generate(ask()))
    assert "".join(delta.text for delta in deltas) == "héllo 😀你好"
    assert finished.usage.output_tokens == 2  # Not told: counted by events.


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "temperature must be non-negative"}}, InvalidArgument),
        (422, {"detail": [{"msg": "field required"}]}, InvalidArgument),
        (401, {"error": {"message": "Incorrect API key"}}, FailedPrecondition),
        (403, "forbidden", FailedPrecondition),
        (404, {"error": {"message": "The model `x` does not exist"}}, ModelNotFound),
        (429, {"error": {"message": "Rate limit"}}, Overloaded),
        (500, "<html>oops</html>", BackendUnavailable),
        (503, {"error": "overloaded"}, BackendUnavailable),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_refusal_is_the_error_that_it_means(
    status: int, body: object, expected: type[PenstockError], streamed: bool
) -> None:
    async with engine_over(answering(status, body)) as engine:
        with pytest.raises(expected) as refused:
            await collect(engine.generate(ask(streamed=streamed)))
    assert type(refused.value) is expected
    assert refused.value.metadata["upstream_status"] == str(status)


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        (
            (
                "This model's maximum context length is 2048 tokens. However, you requested 16 output tokens and your prompt "
                "contains at least 2033 input tokens, for a total of at least 2049 tokens."
            ),
            {"context_window": "2048", "prompt_tokens": "2033"},
        ),
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9031 tokens.",
            {"context_window": "8192", "prompt_tokens": "9031"},
        ),
        ("the request exceeds the available context size", {}),
    ],
)
async def test_a_prompt_over_the_window_is_recognised_and_its_numbers_read(said: str, numbers: dict[str, str]) -> None:
    async with engine_over(answering(400, {"error": {"message": said, "code": 400}})) as engine:
        with pytest.raises(PromptTooLong) as refused:
            await collect(engine.generate(ask()))
    assert refused.value.metadata == {"upstream_status": "400", **numbers}


@pytest.mark.parametrize(("header", "expected"), [("7", 7.0), ("nonsense", 1.0), ("-3", 0.0), ("nan", 1.0)])
async def test_an_overloaded_endpoints_hint_is_passed_on(header: str, expected: float) -> None:
    async with engine_over(answering(429, {}, {"Retry-After": header})) as engine:
        with pytest.raises(Overloaded) as refused:
            await collect(engine.generate(ask()))
    assert refused.value.retry_after_s == expected


async def test_an_error_in_the_stream_comes_after_the_text_before_it() -> None:
    broken = b'data: {"error":{"message":"engine died","type":"InternalServerError","code":500}}\n\n'
    texts = []
    async with engine_over(sse(chunk("A "), broken)) as engine:
        with pytest.raises(BackendUnavailable, match="engine died"):
            async for part in engine.generate(ask()):
                texts.append(part.text)
    assert texts == ["A "]


async def test_a_stream_that_stops_short_is_not_taken_for_an_answer() -> None:
    async with engine_over(sse(chunk("A "), chunk("pi"))) as engine:
        with pytest.raises(BackendUnavailable, match="before it was finished"):
            await collect(engine.generate(ask()))


async def test_a_connection_that_breaks_in_the_middle_is_unavailable() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("A "))
        request.transport.abort()
        return response

    async with engine_over(handle) as engine:
        with pytest.raises(BackendUnavailable, match="broke off"):
            await collect(engine.generate(ask()))


@pytest.mark.parametrize("body", ["<html>hello</html>", "[1, 2]"])
async def test_what_is_not_the_dialect_is_unavailable_and_says_to_look_at_the_url(body: str) -> None:
    async with engine_over(answering(200, body)) as engine:
        with pytest.raises(BackendUnavailable, match="base URL"):
            await collect(engine.generate(ask(streamed=False)))


async def test_a_silent_endpoint_is_given_up() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("A "))
        await asyncio.sleep(60)
        return response

    async with engine_over(handle, openai_idle_timeout_s=0.1) as engine:
        with pytest.raises(BackendUnavailable, match="in time"):
            await collect(engine.generate(ask()))


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_leaving_closes_the_connection_so_that_the_endpoint_stops(how: str) -> None:
    stopped = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(chunk("on "))
                await asyncio.sleep(0.005)
        finally:
            stopped.set()

    async with engine_over(handle) as engine:
        async with aclosing(engine.generate(ask())) as answer:
            await anext(answer)
            assert engine.load().running == 1
            if how == "cancel":
                reading = asyncio.create_task(collect(answer))
                await asyncio.sleep(0.02)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        async with asyncio.timeout(5):
            await stopped.wait()
        assert engine.load().running == 0


async def test_connections_are_kept_and_used_again() -> None:
    peers = set()

    async def handle(request: web.Request) -> web.StreamResponse:
        peers.add(request.transport.get_extra_info("peername"))
        return await sse(*ANSWER)(request)

    async with engine_over(handle) as engine:
        for _ in range(5):
            await collect(engine.generate(ask()))
    assert len(peers) == 1


async def test_the_key_is_sent_and_never_shown() -> None:
    keys = []

    async def handle(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("Authorization"))
        return await sse(*ANSWER)(request)

    async with engine_over(handle, openai_api_key="sk-secret") as engine:
        await collect(engine.generate(ask()))
    assert keys == ["Bearer sk-secret"]
    assert "sk-secret" not in repr(endpoint_settings("http://127.0.0.1:1/v1", openai_api_key="sk-secret"))
