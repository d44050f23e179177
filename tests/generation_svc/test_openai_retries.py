"""What is asked again and what is not, before a real HTTP server that fails in every way it can."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from generation_svc.openai_engine import OpenAiEngine
from penstock.deadline import within
from penstock.errors import BackendUnavailable, EngineFailed, InvalidArgument, Overloaded, PenstockError
from tests.generation_svc.fakes import ask, collect
from tests.generation_svc.openai_endpoint import (
    ANSWER,
    DONE,
    answering,
    chunk,
    endpoint_settings,
    engine_over,
    in_turn,
    resetting,
    sse,
)

WHOLE = answering(200, {"choices": [{"message": {"content": "A pipe."}, "finish_reason": "stop"}]})
HALF = b'{"choices": [{"message": {"cont'


async def text_of(engine: OpenAiEngine, *, streamed: bool = True) -> str:
    deltas, _ = await collect(engine.generate(ask(streamed=streamed)))
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    "failure",
    [
        resetting(),
        resetting(chunk("")),
        answering(502, "bad gateway"),
        answering(503, "starting"),
        answering(504, "late"),
        sse(b'data: {"error": {"message": "not ready", "code": 503}}\n\n'),
    ],
    ids=["reset", "reset-after-headers", "502", "503", "504", "503-in-the-stream"],
)
async def test_what_passes_is_asked_again_before_the_first_token(failure) -> None:
    handler = in_turn(failure, failure, sse(*ANSWER))
    async with engine_over(handler) as engine:
        assert await text_of(engine) == "A pipe."
        assert engine.load().running == 0
    assert len(handler.asked) == 3


@pytest.mark.parametrize("failure", [resetting(), answering(503, "starting")], ids=["reset", "503"])
async def test_a_whole_answer_is_asked_for_again_too(failure) -> None:
    handler = in_turn(failure, WHOLE)
    async with engine_over(handler) as engine:
        assert await text_of(engine, streamed=False) == "A pipe."
    assert len(handler.asked) == 2


@pytest.mark.parametrize(
    ("failure", "streamed"),
    [
        (resetting(chunk("A ")), True),
        (sse(chunk("A "), b'data: {"error": {"message": "gone", "code": 503}}\n\n'), True),
        (sse(chunk("A ")), True),
        (resetting(HALF, length=1000), False),
    ],
    ids=["reset", "503-in-the-stream", "ended-early", "half-a-whole-answer"],
)
async def test_nothing_is_asked_again_once_the_answer_began(failure, streamed: bool) -> None:
    handler = in_turn(failure, sse(*ANSWER))
    texts = []
    async with engine_over(handler) as engine:
        with pytest.raises(BackendUnavailable):
            async for part in engine.generate(ask(streamed=streamed)):
                texts.append(part.text)
    assert texts == (["A "] if streamed else [])
    assert len(handler.asked) == 1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (answering(400, {"error": {"message": "no"}}), InvalidArgument),
        (answering(500, "defect"), BackendUnavailable),
        (answering(429, "busy"), Overloaded),
        (answering(429, "busy", {"Retry-After": "soon"}), Overloaded),
        (answering(200, "<html>"), BackendUnavailable),
    ],
    ids=["400", "500", "429-without-a-time", "429-with-garbage", "not-the-dialect"],
)
async def test_what_does_not_pass_is_not_asked_again(failure, expected: type[PenstockError]) -> None:
    handler = in_turn(failure, WHOLE)
    async with engine_over(handler) as engine:
        with pytest.raises(expected):
            await text_of(engine, streamed=False)
    assert len(handler.asked) == 1


async def test_a_silent_endpoint_is_not_asked_again_for_it_may_be_at_work() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    handler = in_turn(silent, sse(*ANSWER))
    async with engine_over(handler, openai_idle_timeout_s=0.1) as engine:
        with pytest.raises(BackendUnavailable, match="in time"):
            await text_of(engine)
    assert len(handler.asked) == 1


async def test_tries_are_bounded_and_the_last_failure_is_told() -> None:
    handler = in_turn(answering(503, "starting"))
    async with engine_over(handler, openai_retries_max=1) as engine:
        with pytest.raises(BackendUnavailable, match="starting"):
            await text_of(engine)
    assert len(handler.asked) == 2


async def test_an_endpoint_that_is_down_is_not_asked_thrice_as_much_by_everyone() -> None:
    handler = in_turn(answering(503, "down"))
    async with engine_over(handler) as engine:
        for _ in range(10):
            with pytest.raises(BackendUnavailable):
                await text_of(engine)
    assert 10 < len(handler.asked) < 15


async def test_a_budget_that_was_used_comes_back_with_answers() -> None:
    down, up = [answering(503, "down")] * 13, [sse(*ANSWER)] * 70
    handler = in_turn(*down, *up, answering(503, "down"), sse(*ANSWER))
    async with engine_over(handler) as engine:
        for _ in range(10):
            with pytest.raises(BackendUnavailable):
                await text_of(engine)
        for _ in range(71):
            assert await text_of(engine) == "A pipe."
    assert len(handler.asked) == len(down) + len(up) + 2


def http_date(seconds_ahead: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds_ahead), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_time_that_the_endpoint_asks_for_is_waited(status: int, streamed: bool) -> None:
    handler = in_turn(answering(status, "busy", {"Retry-After": "0.3"}), sse(*ANSWER) if streamed else WHOLE)
    async with engine_over(handler) as engine:
        assert await text_of(engine, streamed=streamed) == "A pipe."
    first, second = handler.asked
    assert second - first >= 0.3


async def test_a_date_is_waited_for_too() -> None:
    handler = in_turn(answering(429, "busy", {"Retry-After": http_date(2)}), sse(*ANSWER))
    async with engine_over(handler, openai_retry_after_max_s=3) as engine:
        assert await text_of(engine) == "A pipe."
    first, second = handler.asked
    assert second - first >= 0.9  # Dates have whole seconds.


async def test_an_endpoint_that_is_overloaded_twice_is_the_callers_to_hear_of() -> None:
    handler = in_turn(answering(429, "busy", {"Retry-After": "0.05"}))
    async with engine_over(handler) as engine:
        with pytest.raises(Overloaded) as refused:
            await text_of(engine)
    assert refused.value.retry_after_s == 0.05
    assert refused.value.metadata["upstream_retry_after"] == "0.05"
    assert len(handler.asked) == 2


@pytest.mark.parametrize(
    ("status", "expected"), [(429, Overloaded), (503, BackendUnavailable)], ids=["overloaded", "unavailable"]
)
async def test_a_long_quiet_is_passed_on_and_kept_for_everyone(status: int, expected: type[PenstockError]) -> None:
    handler = in_turn(answering(status, "busy", {"Retry-After": "30"}), sse(*ANSWER))
    async with engine_over(handler) as engine:
        for _ in range(20):
            with pytest.raises(expected, match="busy") as refused:
                await text_of(engine)
            assert 29 < refused.value.retry_after_s <= 30
    assert len(handler.asked) == 1


async def test_requests_wait_for_a_short_quiet_that_another_was_told_of() -> None:
    handler = in_turn(answering(429, "busy", {"Retry-After": "0.3"}), sse(*ANSWER))
    async with engine_over(handler, openai_retries_max=0) as engine:
        with pytest.raises(Overloaded):
            await text_of(engine)
        assert await asyncio.gather(*(text_of(engine) for _ in range(5))) == ["A pipe."] * 5
    first, *others = handler.asked
    assert len(others) == 5
    assert min(others) - first >= 0.3


async def test_a_wait_that_the_deadline_does_not_hold_is_not_begun() -> None:
    handler = in_turn(answering(503, "starting", {"Retry-After": "1.5"}), sse(*ANSWER))
    async with engine_over(handler) as engine:
        with within(1.0), pytest.raises(BackendUnavailable) as refused:
            await text_of(engine)
    assert refused.value.retry_after_s == 1.5
    assert len(handler.asked) == 1


async def test_a_wait_may_be_cancelled() -> None:
    handler = in_turn(answering(503, "starting", {"Retry-After": "2"}), sse(*ANSWER))
    async with engine_over(handler) as engine:
        waiting = asyncio.create_task(text_of(engine))
        while not handler.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine.load().running == 0
    assert len(handler.asked) == 1


async def test_an_endpoint_that_went_away_is_unavailable_after_as_many_tries() -> None:
    async with engine_over(sse(*ANSWER)) as engine:
        assert await text_of(engine) == "A pipe."
        lost = await OpenAiEngine.start(endpoint_settings(str(engine._endpoint.base_url)))
    try:
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            await text_of(lost)
    finally:
        await lost.close()


async def test_connections_are_bounded_and_whoever_waits_for_one_gets_its_turn() -> None:
    now, most = 0, 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.02)
        now -= 1
        return await sse(*ANSWER)(request)

    async with engine_over(handle, running_max=3) as engine:
        assert await asyncio.gather(*(text_of(engine) for _ in range(12))) == ["A pipe."] * 12
    assert most == 3


async def test_waiting_for_a_connection_ends_with_the_deadline_or_a_cancellation() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("A "))
        await asyncio.sleep(60)
        return response

    handler = in_turn(slow, sse(*ANSWER))
    async with engine_over(handler, running_max=1) as engine:
        async with aclosing(engine.generate(ask())) as first:
            await anext(first)
            with within(0.1), pytest.raises(BackendUnavailable, match="in time"):
                await text_of(engine)
            waiting = asyncio.create_task(text_of(engine))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await text_of(engine) == "A pipe."
    assert len(handler.asked) == 2


async def test_closing_the_engine_fails_what_runs_and_what_would() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(chunk("on "))
            await asyncio.sleep(0.01)

    async with engine_over(endless) as engine:
        async with aclosing(engine.generate(ask())) as answer:
            await anext(answer)
            await engine.close()
            with pytest.raises(EngineFailed):
                await collect(answer)
        assert not engine.health()
        with pytest.raises(EngineFailed):
            await text_of(engine)


async def test_an_answer_without_its_done_is_whole_if_it_has_its_reason() -> None:
    async with engine_over(sse(*(part for part in ANSWER if part != DONE))) as engine:
        assert await text_of(engine) == "A pipe."
