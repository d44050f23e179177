"""Flows in SQL: SQLite when embedded, PostgreSQL by another URL and the same code. Jobs are beside them (job_store.py)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Column, DateTime, MetaData, String, Table, Text, delete, event, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.flows import StoredFlow
from gateway.origin import Provenance
from penstock.database_url import unusable_url
from penstock.errors import AlreadyExists, Unavailable

_URL_SETTING: Final = "PENSTOCK_GATEWAY_DATABASE_URL"
_ATTEMPTS_MAX: Final = 3

METADATA: Final = MetaData()
FLOWS: Final = Table(
    "flows",
    METADATA,
    Column("id", String(63), primary_key=True),
    Column("content_hash", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # What a list tells of each flow, so that it need not read and validate the documents.
    Column("interface", Text, nullable=False),
)
# Several flows may have an alias; it leads to the one that had it first.
ALIASES: Final = Table(
    "flow_aliases",
    METADATA,
    Column("alias", String(255), primary_key=True),
    Column("flow_id", String(63), primary_key=True),
    Column("create_time", DateTime(timezone=True), nullable=False),
)


class SqlFlowStore:
    """The FlowStore. Made by `open_store`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, flow: StoredFlow, *, replace: bool) -> StoredFlow:
        # The three statements need no lock: each tells by itself whether another writer was faster.
        for _ in range(_ATTEMPTS_MAX):
            if await self._insert(flow):
                return flow
            if replace and await self._update(flow):
                return flow
            kept = await self.get(flow.flow_id)
            if kept is not None and kept.content_hash == flow.content_hash:
                return kept
            if kept is not None and not replace:
                raise AlreadyExists(
                    f"another document is kept as flow {flow.flow_id!r}; set replace to put this one in its place",
                    metadata={"flow": flow.flow_id, "content_hash": kept.content_hash},
                )
        raise Unavailable(f"flow {flow.flow_id!r} is being changed by others at the same time; try again")

    async def get(self, flow_id: str) -> StoredFlow | None:
        async with self.connected() as connection:
            row = (await connection.execute(select(FLOWS).where(FLOWS.c.id == flow_id))).one_or_none()
        return None if row is None else _stored(row, row.document)

    async def page(self, after: str, limit: int) -> tuple[StoredFlow, ...]:
        columns = (FLOWS.c.id, FLOWS.c.content_hash, FLOWS.c.create_time, FLOWS.c.interface)
        query = select(*columns).where(FLOWS.c.id > after).order_by(FLOWS.c.id).limit(limit)
        async with self.connected() as connection:
            rows = (await connection.execute(query)).all()
        return tuple(_stored(row, "") for row in rows)

    async def delete(self, flow_id: str) -> bool:
        async with self.connected() as connection:
            result = await connection.execute(delete(FLOWS).where(FLOWS.c.id == flow_id))
            await connection.execute(delete(ALIASES).where(ALIASES.c.flow_id == flow_id))
        return result.rowcount > 0

    async def resolve(self, alias: str) -> str | None:
        first = select(ALIASES.c.flow_id).where(ALIASES.c.alias == alias).order_by(ALIASES.c.create_time, ALIASES.c.flow_id)
        async with self.connected() as connection:
            flow_id: str | None = (await connection.execute(first.limit(1))).scalar_one_or_none()
        return flow_id

    async def _insert(self, flow: StoredFlow) -> bool:
        try:
            async with self.connected() as connection:
                await connection.execute(insert(FLOWS).values(id=flow.flow_id, **_columns(flow)))
                await _put_aliases(connection, flow)
        except IntegrityError:
            return False
        return True

    async def _update(self, flow: StoredFlow) -> bool:
        """Whether there was a flow with another document."""
        other = (FLOWS.c.id == flow.flow_id) & (FLOWS.c.content_hash != flow.content_hash)
        async with self.connected() as connection:
            result = await connection.execute(update(FLOWS).where(other).values(**_columns(flow)))
            if result.rowcount > 0:
                await _put_aliases(connection, flow)
        return result.rowcount > 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, committed at the end. What goes wrong with the database is Unavailable."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, OSError, PoolTimeout) as error:
            raise _unavailable(error) from error


@asynccontextmanager
async def open_store(database_url: str, data_dir: Path) -> AsyncIterator[SqlFlowStore]:
    """The store at `database_url`, or in SQLite under `data_dir` where that is empty. Makes what is missing.

    Raises FailedPrecondition for a URL that cannot be used, Unavailable when the database cannot.
    """
    if not database_url:
        data_dir.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Once, before anything is served.
        database_url = f"sqlite+aiosqlite:///{data_dir / 'flows.db'}"
    engine = _engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    try:
        await _create_tables(engine)
        yield SqlFlowStore(engine)
    finally:
        await engine.dispose()


def _engine(database_url: str) -> AsyncEngine:
    try:
        return create_async_engine(database_url)
    except (ArgumentError, InvalidRequestError, ImportError, ValueError) as error:
        raise unusable_url(database_url, _URL_SETTING, error) from error


async def _create_tables(engine: AsyncEngine) -> None:
    try:
        async with engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
    except (DBAPIError, OSError) as error:
        message = f"{_unavailable(error).message}; check that it runs, and {_URL_SETTING}"
        raise Unavailable(message) from error


def _unavailable(error: Exception) -> Unavailable:
    # The driver's own words name the problem; SQLAlchemy's would repeat the statement and its parameters.
    cause = getattr(error, "orig", None) or error
    return Unavailable(f"the database of flows cannot be used: {cause}", retry_after_s=1.0)


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # Readers do not wait for the writer.
    cursor.execute("PRAGMA synchronous=FULL")  # What was acknowledged survives a power cut.
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


async def _put_aliases(connection: AsyncConnection, flow: StoredFlow) -> None:
    """Makes the flow's aliases those that it has now. One that it had before keeps its time."""
    own = ALIASES.c.flow_id == flow.flow_id
    await connection.execute(delete(ALIASES).where(own & ALIASES.c.alias.not_in(flow.aliases)))
    kept = set((await connection.execute(select(ALIASES.c.alias).where(own))).scalars())
    for alias in flow.aliases:
        if alias not in kept:
            await connection.execute(insert(ALIASES).values(alias=alias, flow_id=flow.flow_id, create_time=flow.create_time))


def _columns(flow: StoredFlow) -> dict[str, Any]:
    return {
        "content_hash": flow.content_hash,
        "document": flow.document,
        "create_time": flow.create_time,
        "interface": orjson.dumps(
            {"inputs": flow.inputs, "outputs": flow.outputs, "description": flow.description, "origin": flow.origin}
        ).decode(),
    }


def _stored(row: Row[*tuple[Any, ...]], document: str) -> StoredFlow:
    interface = orjson.loads(row.interface)
    return StoredFlow(
        flow_id=row.id,
        content_hash=row.content_hash,
        document=document,
        # SQLite forgets the zone; everything is written in UTC.
        create_time=row.create_time if row.create_time.tzinfo else row.create_time.replace(tzinfo=UTC),
        inputs=tuple((name, kind, required) for name, kind, required in interface["inputs"]),
        outputs=tuple(interface["outputs"]),
        description=interface.get("description", ""),
        origin=Provenance(**interface.get("origin", {})),
    )
