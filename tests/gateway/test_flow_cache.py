import asyncio

import pytest

from gateway.compiler import CompiledFlow
from gateway.flow_cache import FlowCache, SingleFlight
from penstock.errors import NotFound
from tests.gateway.fakes import ECHO, World


def echo(world: World, number: int) -> CompiledFlow:
    return world.compile(ECHO.replace('"loud"', f'"loud{number}"'))


async def test_what_many_want_at_once_is_made_once(world: World) -> None:
    cache, made, go = FlowCache(4), 0, asyncio.Event()
    flow = echo(world, 1)

    async def make() -> CompiledFlow:
        nonlocal made
        made += 1
        await go.wait()
        return flow

    waiting = [asyncio.create_task(cache.get(flow.flow.content_hash, make)) for _ in range(10)]
    await asyncio.sleep(0)
    go.set()
    assert set(await asyncio.gather(*waiting)) == {flow}
    assert made == 1
    assert await cache.get(flow.flow.content_hash, make) is flow
    assert made == 1


async def test_one_who_leaves_does_not_stop_it_for_the_others() -> None:
    flights: SingleFlight[str] = SingleFlight()
    go = asyncio.Event()

    async def make() -> str:
        await go.wait()
        return "made"

    first, second = (asyncio.create_task(flights.do("key", make)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert await second == "made"


async def test_an_error_reaches_everyone_and_the_next_one_tries_again() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def fail() -> str:
        raise NotFound("gone")

    async def make() -> str:
        return "made"

    results = await asyncio.gather(*(flights.do("key", fail) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["gone"] * 3
    assert await flights.do("key", make) == "made"


async def test_the_least_recently_used_leaves_first(world: World) -> None:
    cache, made = FlowCache(2), []

    async def get(number: int) -> None:
        flow = echo(world, number)

        async def make() -> CompiledFlow:
            made.append(number)
            return flow

        await cache.get(flow.flow.content_hash, make)

    for number in (1, 2, 1, 3, 1, 2):
        await get(number)
    assert made == [1, 2, 3, 2]
    assert len(cache) == 2
