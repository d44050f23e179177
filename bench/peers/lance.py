"""LanceDB, which has no server to install: its async API in the worker's process, whose CPU includes the client's."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import lancedb  # type: ignore[import-not-found]  # In its environment only.
import pyarrow as pa
from lancedb.index import HnswSq  # type: ignore[import-not-found]  # Likewise.

from bench.closed_loop import Reply
from bench.corpus import DIMENSION
from bench.peers.adapter import HNSW_EF_CONSTRUCTION, HNSW_M, TOP_K, Matrix, rows_of


class Lance:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-bench-lance-")
        self._table: Any = None
        self._ef = 64

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:
        database = await lancedb.connect_async(self._folder.name)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)
        data = pa.table({"id": pa.array(range(len(vectors))), "text": pa.array(texts), "vector": rows})
        self._table = await database.create_table("bench", data)
        graph = HnswSq(distance_type="cosine", num_partitions=1, m=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION)
        await self._table.create_index("vector", config=graph)

    async def set_ef(self, ef: int) -> None:
        self._ef = ef

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        return [(hit["id"], hit["text"]) for hit in await self._search(query)]

    def server_pid(self) -> int:
        return os.getpid()

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # It is in this process.
        yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # Likewise.
        try:
            await self._search(rows_of(payload))
        except Exception as error:  # noqa: BLE001  # Whatever it raises.
            return Reply(fault=type(error).__name__)
        return Reply()

    async def _search(self, query: Matrix) -> Any:
        asked = self._table.query().nearest_to(query).distance_type("cosine").ef(self._ef)
        # Its graph holds vectors in 8 bits; refining re-scores from the raw ones, as the others' graphs do.
        return await asked.refine_factor(2).select(["id", "text"]).limit(TOP_K).to_list()


def adapter() -> Lance:
    return Lance()
