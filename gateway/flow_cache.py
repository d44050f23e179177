"""Compiled flows by content hash: at most so many, the least recently used leaves first, and each compiled once at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gateway.compiler import CompiledFlow

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Callers that want the same thing at the same time share one making of it."""

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Task[T]] = {}

    async def do(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` gives. A caller that leaves takes only itself away; an error reaches everyone who waits."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(_made(make))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(flight)

    def _land(self, key: str, flight: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # Looked at, so that asyncio does not complain where every waiter has left.


class FlowCache:
    """Bounded, and safe to forget anything from: a flow that is not here is compiled again."""

    def __init__(self, flows_max: int) -> None:
        self._flows: OrderedDict[str, CompiledFlow] = OrderedDict()
        self._flows_max = flows_max
        self._compiling: SingleFlight[CompiledFlow] = SingleFlight()

    def __len__(self) -> int:
        return len(self._flows)

    async def get(self, content_hash: str, make: Callable[[], Awaitable[CompiledFlow]]) -> CompiledFlow:
        """The compiled flow of this hash, by `make` if it is not here. Raises what `make` raises and keeps nothing then."""
        flow = self._flows.get(content_hash)
        if flow is not None:
            self._flows.move_to_end(content_hash)
            return flow
        flow = await self._compiling.do(content_hash, make)
        self.put(content_hash, flow)
        return flow

    def put(self, content_hash: str, flow: CompiledFlow) -> None:
        """Keeps a flow that has just been compiled."""
        self._flows[content_hash] = flow
        self._flows.move_to_end(content_hash)
        while len(self._flows) > self._flows_max:
            self._flows.popitem(last=False)


async def _made(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
