"""Writes of one turn of the loop are one write."""

import asyncio

from penstock.gathering import Gathering


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_writes_of_a_turn_leave_together_and_in_order() -> None:
    transport = Transport()
    gathering = Gathering(transport)
    gathering.write(b"a")
    gathering.write(b"b")
    assert transport.written == []
    await asyncio.sleep(0)
    gathering.write(b"c")
    await asyncio.sleep(0)
    assert transport.written == [b"ab", b"c"]


async def test_what_was_written_is_sent_before_it_is_closed() -> None:
    transport = Transport()
    gathering = Gathering(transport)
    gathering.write(b"a")
    gathering.close()
    await asyncio.sleep(0)
    assert (transport.written, gathering.is_closing()) == ([b"a"], True)


async def test_much_is_not_kept_waiting() -> None:
    transport = Transport()
    gathering = Gathering(transport)
    for _ in range(100):
        gathering.write(b"x" * 1000)
    assert transport.written, "a writer that never lets the loop turn does not fill the memory"
