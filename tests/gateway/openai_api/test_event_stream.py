"""A stream that keeps its connection open while nothing is said."""

import asyncio
from collections.abc import Sequence

from gateway.openai_api.event_stream import EventStream
from penstock.transcoding.exchange import ClientLeft


class FakeCall:
    """Notes what is sent; `leaves`: there is nobody to send it to."""

    def __init__(self) -> None:
        self.starts = 0
        self.written: list[bytes] = []
        self.leaves = False

    async def start_stream(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.starts += 1
        await asyncio.sleep(0.01)

    async def write(self, piece: bytes) -> None:
        if self.leaves:
            raise ClientLeft
        self.written.append(piece)


async def test_the_head_goes_with_the_first_event_and_once() -> None:
    call = FakeCall()
    async with EventStream(call) as stream:
        assert (call.starts, stream.started) == (0, False)
        await stream.write(b"a")
        await stream.write(b"b")
    assert (call.starts, call.written) == (1, [b"a", b"b"])


async def test_a_silent_stream_says_now_and_then_that_it_lives() -> None:
    call = FakeCall()
    async with EventStream(call, heartbeat_s=0.02) as stream:
        await asyncio.sleep(0.1)
        assert stream.started
        await stream.write(b"a")
    beats = call.written.count(b": heartbeat\n\n")
    assert (call.starts, call.written[-1], beats >= 2) == (1, b"a", True)
    await asyncio.sleep(0.05)
    assert call.written.count(b": heartbeat\n\n") == beats


async def test_a_stream_that_speaks_needs_no_heartbeat() -> None:
    call = FakeCall()
    async with EventStream(call, heartbeat_s=0.05) as stream:
        for _ in range(10):
            await stream.write(b"a")
            await asyncio.sleep(0.01)
    assert set(call.written) == {b"a"}


async def test_an_event_and_a_heartbeat_at_once_begin_the_answer_once() -> None:
    call = FakeCall()
    async with EventStream(call, heartbeat_s=0.005) as stream:
        await asyncio.sleep(0.007)
        await stream.write(b"a")
    assert call.starts == 1


async def test_a_heartbeat_to_nobody_is_no_failure() -> None:
    call = FakeCall()
    call.leaves = True
    async with EventStream(call, heartbeat_s=0.005):
        await asyncio.sleep(0.05)
    assert call.written == []
