"""Conversations, kept in this process and in a real Redis: what both do, and what only a Redis can."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import Sessions
from gateway.execution import ChatMessage
from gateway.redis_sessions import redis_sessions
from gateway.sessions import MemorySessions
from gateway.settings import GatewaySettings
from penstock.channel import rpc_errors
from penstock.deadline import within
from penstock.errors import BackendUnavailable
from penstock.flow.v1 import flow_pb2 as pb
from tests.gateway.fakes import document, node
from tests.gateway.serving import Stack, serving


def said(*contents: str, role: str = "user") -> list[ChatMessage]:
    return [ChatMessage(role=role, content=content) for content in contents]


@dataclass
class RedisServer:
    """A redis-server of our own, which writes everything to its disk at once."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        how = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), *how]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < give_up
            assert self.process.poll() is None
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    made = RedisServer(folder)
    made.start()
    yield made
    made.kill()


def shared(server: RedisServer, **how: Any) -> AbstractAsyncContextManager[Sessions]:
    return redis_sessions(server.url, **({"messages_max": 4, "expiry_s": 60.0, "timeout_s": 2.0} | how))


class Whose:
    """A tenant that a test can change."""

    name = ""

    def __call__(self) -> str:
        return self.name


@dataclass
class Kept:
    sessions: Sessions
    tenant: Whose


@pytest.fixture(params=["memory", "redis"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    tenant = Whose()
    made: AbstractAsyncContextManager[Sessions]
    if request.param == "redis":
        made = shared(request.getfixturevalue("server"), tenant=tenant)
    else:
        made = nullcontext(MemorySessions(messages_max=4, expiry_s=60.0, tenant=tenant))
    async with made as sessions:
        yield Kept(sessions, tenant)


async def test_messages_come_back_in_their_order_and_the_newest_are_kept(kept: Kept) -> None:
    sessions = kept.sessions
    assert await sessions.read("s", 10) == ()
    await sessions.append("s", said("one", "two"))
    await sessions.append("s", said("drei ü \n", role="assistant"))
    assert await sessions.read("s", 10) == (*said("one", "two"), *said("drei ü \n", role="assistant"))
    assert [each.content for each in await sessions.read("s", 2)] == ["two", "drei ü \n"]
    assert await sessions.read("s", 0) == ()
    await sessions.append("s", [])
    await sessions.append("s", said("4", "5", "6"))
    assert [each.content for each in await sessions.read("s", 10)] == ["drei ü \n", "4", "5", "6"]
    await sessions.append("s", said(*map(str, range(10))))
    assert [each.content for each in await sessions.read("s", 10)] == ["6", "7", "8", "9"]


async def test_a_session_can_be_forgotten(kept: Kept) -> None:
    await kept.sessions.append("s", said("one"))
    await kept.sessions.append("t", said("two"))
    await kept.sessions.forget("s")
    await kept.sessions.forget("never there")
    assert await kept.sessions.read("s", 9) == ()
    assert len(await kept.sessions.read("t", 9)) == 1
    await kept.sessions.append("s", said("anew"))
    assert [each.content for each in await kept.sessions.read("s", 9)] == ["anew"]


async def test_a_session_is_its_tenants_alone(kept: Kept) -> None:
    for tenant, session in (("a", "b:c"), ("a:b", "c"), ("", "a:b:c"), ("a%3Ab", "c")):
        kept.tenant.name = tenant
        assert await kept.sessions.read(session, 10) == ()
        await kept.sessions.append(session, said(f"{tenant}|{session}"))
    for tenant, session in (("a", "b:c"), ("a:b", "c"), ("", "a:b:c"), ("a%3Ab", "c")):
        kept.tenant.name = tenant
        assert await kept.sessions.read(session, 10) == tuple(said(f"{tenant}|{session}"))


async def test_in_memory_what_has_expired_or_is_too_much_is_forgotten() -> None:
    now = [0.0]
    sessions = MemorySessions(sessions_max=3, messages_max=4, expiry_s=10, chars_max=95, now=lambda: now[0])
    await sessions.append("a", said("x"))
    now[0] = 9
    await sessions.append("b", said("y"))
    assert len(await sessions.read("a", 9)) == 1
    now[0] = 10
    assert await sessions.read("a", 9) == ()
    assert len(await sessions.read("b", 9)) == 1
    for name in "cde":
        await sessions.append(name, said("z" * 10))
    assert [len(await sessions.read(name, 9)) for name in "bcde"] == [0, 1, 1, 1]
    for _ in range(5):
        await sessions.append("c", said("z" * 20))
    assert [len(await sessions.read(name, 9)) for name in "cde"] == [4, 0, 1], "80 characters, and 10"
    await sessions.append("d", said("z" * 90))
    assert [len(await sessions.read(name, 9)) for name in "cde"] == [0, 1, 0]
    await sessions.append("d", said("z" * 101))
    assert [len(await sessions.read(name, 9)) for name in "cde"] == [0, 0, 0]


async def test_redis_forgets_a_session_after_its_last_message(server: RedisServer) -> None:
    async with shared(server, expiry_s=0.4) as sessions:
        await sessions.append("s", said("one"))
        await asyncio.sleep(0.25)
        await sessions.append("s", said("two"))
        await asyncio.sleep(0.25)
        assert len(await sessions.read("s", 9)) == 2
        await asyncio.sleep(0.3)
        assert await sessions.read("s", 9) == ()


async def test_two_gateways_write_to_one_session_at_once_and_nothing_is_lost(server: RedisServer) -> None:
    async with shared(server, messages_max=1000) as first, shared(server, messages_max=1000) as second:
        pairs = [said(f"{number}?", f"{number}!") for number in range(200)]
        await asyncio.gather(*((first, second)[number % 2].append("s", pair) for number, pair in enumerate(pairs)))
        found = [each.content for each in await first.read("s", 1000)]
        assert sorted(found) == sorted(each.content for pair in pairs for each in pair)
        assert all(asked[:-1] == answered[:-1] for asked, answered in zip(found[::2], found[1::2], strict=True))
        assert await second.read("s", 1000) == await first.read("s", 1000)


async def test_a_killed_redis_is_told_and_its_return_is_found_with_all_that_was_kept(server: RedisServer) -> None:
    async with shared(server) as sessions:
        await asyncio.gather(*(sessions.append(f"s{number}", said("one")) for number in range(8)))
        server.kill()
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="the Redis that keeps sessions failed") as caught:
                await sessions.read("s1", 9)
            assert caught.value.metadata == {"service": "sessions"}
        with pytest.raises(BackendUnavailable):
            await sessions.append("s1", said("lost"))
        server.start()
        await sessions.append("s1", said("two"))
        assert [each.content for each in await sessions.read("s1", 9)] == ["one", "two"]
        assert all(await asyncio.gather(*(sessions.read(f"s{number}", 9) for number in range(8))))


async def test_a_redis_that_restarted_between_two_calls_is_not_noticed(server: RedisServer) -> None:
    async with shared(server) as sessions:
        await asyncio.gather(*(sessions.append("s", said("one")) for _ in range(4)))
        server.kill()
        await asyncio.sleep(0.05)
        server.start()
        for _ in range(6):
            assert len(await sessions.read("s", 9)) == 4


async def test_a_redis_that_hangs_takes_no_longer_than_the_deadline(server: RedisServer) -> None:
    async with shared(server, timeout_s=0.3) as sessions, shared(server, timeout_s=30.0) as patient:
        await sessions.append("s", said("one"))
        await patient.read("s", 9)
        server.signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable):
            await sessions.read("s", 9)
        with pytest.raises(BackendUnavailable, match=r"within 0\.[12]"), within(0.2):
            await patient.append("s", said("two"))
        assert time.monotonic() - begun < 2
        server.signal(signal.SIGCONT)
        await asyncio.sleep(0.1)
        assert [each.content for each in await patient.read("s", 9)][:1] == ["one"]


async def test_a_call_that_is_cancelled_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    async with shared(server) as sessions:
        await sessions.append("a", said("of a"))
        await sessions.append("b", said("of b"))
        for steps in range(1, 12):
            reading = asyncio.ensure_future(sessions.read("a", 9))
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert await sessions.read("b", 9) == tuple(said("of b"))


async def test_another_kind_of_value_under_the_key_is_told(server: RedisServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"SET penstock:session::s text\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    async with shared(server) as sessions:
        for call in (sessions.read("s", 9), sessions.append("s", said("one"))):
            with pytest.raises(BackendUnavailable, match="WRONGTYPE"):
                await call


CHAT = document(
    node("question", "input"), node("past", "history", operation="read"),
    node("asked", "history", operation="append", role="user"),
    node("prompt", "prompt", template="{past}|{asked}"), node("answer", "output"),
    edges=["question > asked", "past > prompt", "asked > prompt", "prompt > answer"],
)  # fmt: skip


async def asked(stack: Stack, question: str) -> str:
    request = pb.RunFlowRequest(name="flows/chat", session="s1")
    request.inputs.update({"question": question})
    with rpc_errors("gateway"):
        return str((await stack.runs.RunFlow(request, timeout=10)).outputs["answer"])


async def test_any_gateway_goes_on_with_a_conversation_and_starts_without_its_redis(
    server: RedisServer, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        flows = tmp_path / name / "flows"
        flows.mkdir(parents=True)
        (flows / "chat.json").write_text(CHAT)
    server.kill()  # A gateway starts without it, and its other flows run.

    def gateway(name: str) -> AbstractAsyncContextManager[Stack]:
        return serving(tmp_path / name, flows_dir=tmp_path / name / "flows", sessions_url=server.url)

    async with gateway("one") as one, gateway("two") as two:
        with pytest.raises(BackendUnavailable, match="sessions"):
            await asked(one, "Anyone?")
        server.start()
        assert await asked(one, "Who?") == "|Who?"
        assert await asked(two, "What?") == "user: Who?|What?"
        assert await asked(one, "Why?") == "user: Who?\nuser: What?|Why?"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "postgresql://x/y"])
def test_what_is_no_url_of_a_redis_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL of a Redis"):
        GatewaySettings(sessions_url=url)


def test_the_password_of_the_redis_is_shown_nowhere() -> None:
    settings = GatewaySettings(sessions_url="redis://:hunter2@localhost:6379")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
