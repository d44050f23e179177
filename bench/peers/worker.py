"""A process in a peer's environment: `python -m bench.peers.worker ADAPTER JSON`, with the tasks of bench.worker's manner."""

import asyncio
import base64
import importlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import orjson

from bench.answering import Tasks, answer_tasks
from bench.closed_loop import Caller, Load, Reply, drive
from bench.corpus import clustered_vectors, passages
from bench.meter import Meter, family
from bench.peers.adapter import Adapter


class PeerTasks:
    """What the bench asks of a peer."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    async def fill(self, *, count: int) -> dict[str, float]:
        """Stores the bench's vectors; how long that and the index took."""
        vectors, texts = clustered_vectors(count), list(passages(count))
        began = time.perf_counter()
        await self._adapter.fill(vectors, texts)
        return {"seconds": time.perf_counter() - began}

    async def set_ef(self, *, ef: int) -> None:
        await self._adapter.set_ef(ef)

    async def nearest(self, *, count: int) -> list[list[int]]:
        """The hits of the first queries. Raises ValueError where a hit comes without its text."""
        async with self._adapter.opened(1):
            found = [await self._adapter.nearest(query) for query in clustered_vectors(count, queries=True)]
        if not all(text for hits in found for _, text in hits):
            message = "a hit has no text"
            raise ValueError(message)
        return [[row for row, _ in hits] for hits in found]

    async def run(self, *, load: Mapping[str, Any]) -> dict[str, Any]:
        """Drives it. The server's processes are looked up when all connections are open: some serve each by a process."""
        asked = Load(**{**load, "payloads": [base64.b64decode(each) for each in load["payloads"]]})
        async with self._adapter.opened(asked.in_flight):
            await asyncio.gather(*(self._adapter.call(slot, asked.payloads[0]) for slot in range(asked.in_flight)))
            server = [pid for pid in family(self._adapter.server_pid()) if pid != os.getpid()] or [os.getpid()]
            sample = await drive(_Opened(self._adapter), asked, Meter({"server": server}))
        return asdict(sample)


class _Opened:
    """A caller whose connections are open."""

    def __init__(self, caller: Caller) -> None:
        self.call = caller.call

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # Caller's signature.
        yield


def reply_of(error: Exception) -> Reply:
    """A failed call."""
    return Reply(fault=type(error).__name__)


async def _main(name: str, options: Mapping[str, Any]) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Libraries that print must not be taken for answers.
    tasks = PeerTasks(importlib.import_module(f"bench.peers.{name}").adapter(**options))
    asked: Tasks = {"fill": tasks.fill, "set_ef": tasks.set_ef, "nearest": tasks.nearest, "run": tasks.run}
    await answer_tasks(asked, answers)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], orjson.loads(sys.argv[2])))
