"""Asking again where a service has no room or cannot be reached, as long as nothing of an answer has come."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from penstock.errors import Overloaded, PenstockError, Unavailable

WAIT_S: Final = 0.5
WAIT_MAX_S: Final = 30.0
_WORTH_ANOTHER_TRY: Final = (Overloaded, Unavailable)

T = TypeVar("T")


async def retrying(call: Callable[[], Awaitable[T]], tries_more: int) -> T:
    """What `call` gives. Waits as long as the error says, or twice as long each time."""
    for tries in range(tries_more + 1):
        try:
            return await call()
        except _WORTH_ANOTHER_TRY as error:
            if tries == tries_more:
                raise
            await asyncio.sleep(_wait_s(error, tries))
    raise AssertionError  # The last try has returned or raised.


async def retrying_stream(stream: Callable[[], AsyncGenerator[T, None]], tries_more: int) -> AsyncGenerator[T, None]:
    """The items of `stream`, which is begun again only before its first."""
    for tries in range(tries_more + 1):
        has_begun = False
        try:
            async with aclosing(stream()) as items:
                async for item in items:
                    has_begun = True
                    yield item
        except _WORTH_ANOTHER_TRY as error:
            if has_begun or tries == tries_more:
                raise
            await asyncio.sleep(_wait_s(error, tries))
        else:
            return


def _wait_s(error: PenstockError, tries: int) -> float:
    return min(WAIT_MAX_S, error.retry_after_s or WAIT_S * 2**tries)
