"""The HTTP server of a service on a real socket: what it does before a request is one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from penstock.dispatcher import Dispatcher
from penstock.http_front import HEAD_BYTES_MAX, HttpFront, listen
from penstock.settings import ServiceSettings


@dataclass(frozen=True)
class Served:
    name: str = "test"
    rpc_services: tuple[str, ...] = ()


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    front = HttpFront(listen("127.0.0.1:0"), Served(), ServiceSettings(), Dispatcher((), ()))
    async with front.serving():
        host, _, port = front.address.rpartition(":")
        yield host, int(port)


async def answered(address: tuple[str, int], *parts: bytes) -> bytes:
    """Everything that comes back until the server closes or has nothing to say for half a second."""
    reader, writer = await asyncio.open_connection(*address)
    received = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(0.5):
            while piece := await reader.read(65536):
                received += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return received


@pytest.mark.parametrize("beginning", [b"GET /", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: "])
async def test_a_head_that_does_not_end_is_refused(address: tuple[str, int], beginning: bytes) -> None:
    received = await answered(address, beginning, *[b"a" * 4096] * (HEAD_BYTES_MAX // 4096 + 80))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert str(HEAD_BYTES_MAX).encode() in received


async def test_long_heads_within_the_bound_are_served_again_and_again(address: tuple[str, int]) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * (HEAD_BYTES_MAX // 2) + b"\r\n\r\n"
    received = await answered(address, head, head, head)
    assert received.count(b'{"status":"alive"}') == 3
