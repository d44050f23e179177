"""Keeps the pool current: replicas that come and go, that become ready or drain, and what they work on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from opentelemetry import context, trace

from gateway.replicas.pool import Replicas
from gateway.replicas.replica import Replica
from penstock.addresses import Address
from penstock.discovery import Discovery, Resolve
from penstock.errors import DeadlineExceeded, PenstockError

log = logging.getLogger(__name__)

_UNRECORDED = trace.NonRecordingSpan(trace.SpanContext(trace_id=1, span_id=1, is_remote=False))
"""The parent of calls that nobody asked for, so that they make no traces."""


@asynccontextmanager
async def watched(replicas: Replicas, addresses: Sequence[Address], resolve: Resolve) -> AsyncIterator[None]:
    """Finds the replicas, and watches them while the block runs. Then their calls are ended."""
    watching = _Watching(replicas)
    interval_s = replicas.limits.resolve_interval_s
    discovery = Discovery({"generation": addresses}, watching.update, kind="service", resolve=resolve, interval_s=interval_s)
    await discovery.refresh()
    loop = asyncio.get_running_loop()
    tasks = (loop.create_task(discovery.run()), loop.create_task(watching.ask_for_loads()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await watching.close()


class _Watching:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._following: dict[Replica, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def update(self, _: str, addresses: frozenset[str]) -> None:
        """Discovery's word for who is there."""
        new, gone = self._replicas.update(addresses)
        loop = asyncio.get_running_loop()
        for replica in new:
            self._following[replica] = loop.create_task(_follow(replica))
        for replica in gone:  # Its calls in flight may go on: whoever is no longer named may still be draining.
            task = loop.create_task(self._let_go(replica, self._replicas.limits.close_grace_s))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def ask_for_loads(self) -> None:
        """Has every replica report again and again, where there is something to choose."""
        context.attach(trace.set_span_in_context(_UNRECORDED))
        while True:
            await asyncio.sleep(self._replicas.limits.report_interval_s)
            if len(self._replicas) > 1:
                await asyncio.gather(*map(_ask_for_load, self._replicas.all()))

    async def close(self) -> None:
        """Ends all calls and connections."""
        _, gone = self._replicas.update(())
        await asyncio.gather(*(self._let_go(replica, None) for replica in gone), *self._closing, return_exceptions=True)

    async def _let_go(self, replica: Replica, grace_s: float | None) -> None:
        following = self._following.pop(replica)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await replica.node.close(grace_s)


async def _follow(replica: Replica) -> None:
    async with aclosing(replica.node.readiness()) as changes:
        async for ready in changes:
            if ready != replica.ready:
                log.info("replica %s is %s", replica.address, "ready" if ready else "not ready")
            replica.ready = ready


async def _ask_for_load(replica: Replica) -> None:
    try:
        replica.reported(await replica.node.load())
    except DeadlineExceeded:
        replica.was_silent()
    except PenstockError as error:  # It answers, but not this: its own count of calls has to do.
        log.debug("replica %s does not say what it works on: %s", replica.address, error.message)
        replica.reported(None)
