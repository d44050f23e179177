"""FastAPI + FAISS, asked by the bench's own HTTP client, which is cheaper than any published one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from bench.closed_loop import Reply
from bench.http_caller import HttpCaller
from bench.peers.adapter import Matrix
from bench.peers.processes import free_port, running, until_open


class FastApiFaiss:
    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._caller = HttpCaller(target=f"127.0.0.1:{self._port}", path="/search", dialect="penstock")

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:  # noqa: ARG002  # It makes the texts itself.
        command = [sys.executable, "-m", "bench.peers.fastapi_server", str(self._port), str(len(vectors)), self._graph]
        self._process = await running(command, OMP_NUM_THREADS="1")
        await until_open(self._port, self._process, timeout_s=3600)

    async def set_ef(self, ef: int) -> None:
        caller = HttpCaller(target=f"127.0.0.1:{self._port}", path=f"/ef/{ef}", dialect="penstock", verb="PUT")
        async with caller.opened(1):
            reply = await caller.call(0, b"")
        assert not reply.fault, reply.fault

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        hits = orjson.loads(await self._caller.body(0, query.tobytes()))["hits"]
        return [(hit["id"], hit["text"]) for hit in hits]

    def server_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:
        async with self._caller.opened(slots):
            yield

    async def call(self, slot: int, payload: bytes) -> Reply:
        try:
            orjson.loads(await self._caller.body(slot, payload))
        except OSError as error:
            return Reply(fault=type(error).__name__)
        return Reply()


def adapter(*, graph: str) -> FastApiFaiss:
    return FastApiFaiss(graph)
