"""pgvector (HNSW, inner product of vectors of length 1), asked by asyncpg with a prepared statement on each connection."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from bench.closed_loop import Reply
from bench.corpus import DIMENSION
from bench.peers.adapter import HNSW_EF_CONSTRUCTION, HNSW_M, TOP_K, Matrix, rows_of

_SEARCH = f"SELECT id, text, embedding <#> $1 FROM chunks ORDER BY embedding <#> $1 LIMIT {TOP_K}"


class PgVector:
    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self._ef = 64
        self._statements: list[Any] = []

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:
        connection = await self._connect()
        await connection.execute(f"CREATE TABLE chunks (id int PRIMARY KEY, text text, embedding vector({DIMENSION}))")
        rows = ((row, text, vector) for row, (text, vector) in enumerate(zip(texts, vectors, strict=True)))
        await connection.copy_records_to_table("chunks", records=rows)
        await connection.execute("SET maintenance_work_mem = '1GB'")
        await connection.execute(
            "CREATE INDEX ON chunks USING hnsw (embedding vector_ip_ops) "
            f"WITH (m = {HNSW_M}, ef_construction = {HNSW_EF_CONSTRUCTION})",
            timeout=7200,
        )
        await connection.execute("ANALYZE chunks")
        await connection.close()

    async def set_ef(self, ef: int) -> None:
        self._ef = ef

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        return [(record["id"], record["text"]) for record in await self._statements[0].fetch(query)]

    def server_pid(self) -> int:
        return self._pid

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:
        connections = [await self._connect() for _ in range(slots)]
        self._statements = [await connection.prepare(_SEARCH) for connection in connections]
        yield
        await asyncio.gather(*(connection.close() for connection in connections))

    async def call(self, slot: int, payload: bytes) -> Reply:
        try:
            await self._statements[slot].fetch(rows_of(payload))
        except Exception as error:  # noqa: BLE001  # Whatever its client raises.
            return Reply(fault=type(error).__name__)
        return Reply()

    async def _connect(self) -> Any:
        connection = await asyncpg.connect(host="127.0.0.1", port=self._port, user="penstock", database="postgres")
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await connection.set_type_codec("vector", encoder=_encoded, decoder=bytes, format="binary")
        await connection.execute(f"SET hnsw.ef_search = {self._ef}")
        return connection


def _encoded(vector: Any) -> bytes:
    """pgvector's binary form: dimension and a zero as 16 bits each, then big-endian float32."""
    head = len(vector).to_bytes(2, "big") + b"\0\0"
    return head + bytes(vector.astype(">f4").tobytes())


def adapter(*, port: int, pid: int) -> PgVector:
    return PgVector(port, pid)
