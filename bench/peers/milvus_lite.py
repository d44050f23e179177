"""milvus-lite, whose server pymilvus starts, asked by AsyncMilvusClient."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psutil
from pymilvus import AsyncMilvusClient, DataType, MilvusClient  # type: ignore[import-not-found]  # In its environment.

from bench.closed_loop import Reply
from bench.corpus import DIMENSION
from bench.peers.adapter import HNSW_EF_CONSTRUCTION, HNSW_M, TOP_K, Matrix, rows_of

_BATCH = 2000


class MilvusLite:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-bench-milvus-")
        self._client: Any = None
        self._asking: Any = None
        self._ef = 64

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:
        path = os.path.join(self._folder.name, "bench.db")  # noqa: PTH118  # pymilvus wants a string.
        self._client = MilvusClient(path)
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
        schema.add_field("text", DataType.VARCHAR, max_length=1000)
        graph = self._client.prepare_index_params()
        parameters = {"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION}
        graph.add_index("vector", index_type="HNSW", metric_type="IP", params=parameters)
        self._client.create_collection("bench", schema=schema, index_params=graph)
        for at in range(0, len(vectors), _BATCH):
            rows = range(at, min(at + _BATCH, len(vectors)))
            self._client.insert("bench", [{"id": row, "vector": vectors[row].tolist(), "text": texts[row]} for row in rows])
        self._client.flush("bench")
        self._client.load_collection("bench")
        self._asking = AsyncMilvusClient(path)

    async def set_ef(self, ef: int) -> None:
        self._ef = ef

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        (hits,) = await self._search(query)
        return [(hit["id"], hit["entity"]["text"]) for hit in hits]

    def server_pid(self) -> int:
        """Its server is a child of this process, or a thread in it."""
        children = psutil.Process().children()
        return children[0].pid if children else os.getpid()

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # One connection carries them all.
        yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # Likewise.
        try:
            await self._search(rows_of(payload))
        except Exception as error:  # noqa: BLE001  # Whatever its client raises.
            return Reply(fault=type(error).__name__)
        return Reply()

    async def _search(self, query: Matrix) -> Any:
        parameters = {"metric_type": "IP", "params": {"ef": self._ef}}
        return await self._asking.search(
            "bench", data=[query.tolist()], limit=TOP_K, output_fields=["text"], search_params=parameters
        )


def adapter() -> MilvusLite:
    return MilvusLite()
