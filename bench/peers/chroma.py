"""Chroma's server (`chroma run`), asked by its AsyncHttpClient."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import chromadb  # type: ignore[import-not-found]  # In its environment only.

from bench.closed_loop import Reply
from bench.peers.adapter import HNSW_EF_CONSTRUCTION, HNSW_M, TOP_K, Matrix, rows_of
from bench.peers.processes import free_port, running, until_open

_BATCH = 2000


class Chroma:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-bench-chroma-")
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._collection: Any = None

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:
        program = str(Path(sys.executable).parent / "chroma")
        self._process = await running([program, "run", "--path", self._folder.name, "--port", str(self._port)])
        await until_open(self._port, self._process, timeout_s=60)
        client = await chromadb.AsyncHttpClient(port=self._port, settings=chromadb.Settings(anonymized_telemetry=False))
        graph = {"space": "cosine", "max_neighbors": HNSW_M, "ef_construction": HNSW_EF_CONSTRUCTION, "ef_search": 64}
        self._collection = await client.create_collection("bench", configuration={"hnsw": graph}, embedding_function=None)
        for at in range(0, len(vectors), _BATCH):
            rows = range(at, min(at + _BATCH, len(vectors)))
            await self._collection.add(
                ids=[str(row) for row in rows], embeddings=vectors[at : at + _BATCH], documents=list(texts[at : at + _BATCH])
            )

    async def set_ef(self, ef: int) -> None:
        await self._collection.modify(configuration={"hnsw": {"ef_search": ef}})

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        found = await self._query(query)
        return [(int(row), text) for row, text in zip(found["ids"][0], found["documents"][0], strict=True)]

    def server_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # Its client has a pool of its own.
        yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # Likewise.
        try:
            await self._query(rows_of(payload))
        except Exception as error:  # noqa: BLE001  # Whatever its client raises.
            return Reply(fault=type(error).__name__)
        return Reply()

    async def _query(self, query: Matrix) -> Any:
        return await self._collection.query(query_embeddings=[query], n_results=TOP_K, include=["documents", "distances"])


def adapter() -> Chroma:
    return Chroma()
