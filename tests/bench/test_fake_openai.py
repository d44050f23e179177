"""The fake endpoint, asked by the client that measures it."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from bench.closed_loop import Reply
from bench.fake_openai import STREAM_TOKENS
from bench.http_caller import HttpCaller
from bench.processes import fake_openai

pytestmark = pytest.mark.e2e
COMPLETIONS = "/v1/chat/completions"


@pytest_asyncio.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    async with fake_openai(tmp_path) as (target, _):
        yield target


async def ask(target: str, path: str, *bodies: object) -> list[Reply]:
    caller = HttpCaller(target=target, path=path, dialect="openai")
    async with caller.opened(1):
        return [await caller.call(0, orjson.dumps(body)) for body in bodies]


async def test_a_stream_has_every_token_and_the_connection_serves_the_next_request(address: str) -> None:
    streamed, whole = await ask(address, COMPLETIONS, {"stream": True}, {"stream": False})
    assert (streamed.fault, streamed.output_tokens) == ("", STREAM_TOKENS)
    assert streamed.events == STREAM_TOKENS + 1, "the tokens, and the finish reason"
    assert streamed.first_at > 0
    assert (whole.fault, whole.events, whole.output_tokens) == ("", 0, STREAM_TOKENS)


async def test_an_answer_in_which_the_expected_does_not_stand_is_a_fault(address: str) -> None:
    for expected, fault in {"At once.": "", "Later.": "not the answer"}.items():
        caller = HttpCaller(target=address, path=COMPLETIONS, dialect="openai", headers={"x-a": "b"}, expected=expected)
        async with caller.opened(1):
            assert (await caller.call(0, b"{}")).fault == fault


async def test_what_is_not_there_is_a_fault(address: str) -> None:
    (reply,) = await ask(address, "/v1/nothing", {})
    assert reply.fault == "HTTP 404"


async def test_an_endpoint_that_has_left_is_a_fault_of_every_call_that_follows(tmp_path: Path) -> None:
    async with fake_openai(tmp_path) as (target, _):
        caller = HttpCaller(target=target, path=COMPLETIONS, dialect="openai")
        opened = caller.opened(1)
        await opened.__aenter__()
    replies = [await caller.call(0, b"{}") for _ in range(2)]
    await opened.__aexit__(None, None, None)
    assert all(reply.fault for reply in replies)
