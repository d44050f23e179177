"""The Databases port: the connections that the operator declares, by their names."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.backends import Scalar, SqlQuery, Table
from gateway.databases.reading import Database, ReadingLimits
from gateway.databases.sqlite import SqliteDatabase
from gateway.faults import suggestion
from gateway.nodes.sql import CONNECTION
from penstock.database_url import unusable_url
from penstock.errors import FailedPrecondition, FlowMisconfigured

SETTING: Final = "PENSTOCK_GATEWAY_SQL_CONNECTIONS"
CONNECTIONS_MAX: Final = 64
_IN_MEMORY: Final = frozenset({"", ":memory:"})


class SqlConnections:
    """The Databases. Made by `open_databases`."""

    def __init__(self, databases: Mapping[str, Database]) -> None:
        self._databases = databases

    async def query(self, connection: str, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        database = self._databases.get(connection)
        if database is None:
            hint = suggestion(connection, self._databases, "connections")
            raise FlowMisconfigured(f"{SETTING} has no connection {connection!r} ({hint})", metadata={"connection": connection})
        return await database.query(query, values, rows_max)


@asynccontextmanager
async def open_databases(declared: str, limits: ReadingLimits) -> AsyncIterator[SqlConnections]:
    """The databases of a JSON object of names and URLs. None of them is connected to before it is asked.

    Raises FailedPrecondition, which repeats no password, for what is no such object and for a URL that cannot be used.
    """
    async with AsyncExitStack() as stack:
        databases: dict[str, Database] = {}
        for name, url in _urls(declared).items():
            database = databases[name] = await _opened(name, _parsed(name, url), limits)
            stack.push_async_callback(database.close)
        yield SqlConnections(databases)


def _urls(declared: str) -> dict[str, str]:
    try:
        urls: Any = orjson.loads(declared or "{}")
    except orjson.JSONDecodeError:
        urls = None
    if not isinstance(urls, dict) or not all(isinstance(url, str) for url in urls.values()):
        raise FailedPrecondition(f'{SETTING} must be a JSON object of names and URLs, such as {{"orders": "postgresql+..."}}')
    wrong = next((name for name in urls if not CONNECTION.fullmatch(name)), None)
    if wrong is not None or len(urls) > CONNECTIONS_MAX:
        raise FailedPrecondition(
            f"{SETTING} takes at most {CONNECTIONS_MAX} connections, whose names are a lower-case letter, then lower-case "
            f"letters, digits, - and _, at most 63" + ("" if wrong is None else f"; found {wrong[:64]!r}")
        )
    return urls


def _parsed(name: str, text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise unusable_url(text, _place(name), error) from error
    if url.drivername not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
        raise unusable_url(text, _place(name), ValueError())
    if url.drivername.startswith("sqlite") and (url.database or "") in _IN_MEMORY:
        raise FailedPrecondition(f"{_place(name)} names no file; a database in memory has nothing to read")
    return url


async def _opened(name: str, url: URL, limits: ReadingLimits) -> Database:
    if url.drivername.startswith("sqlite"):
        return SqliteDatabase(name, Path(url.database or ""), limits)
    query = {("sslmode" if key == "ssl" else key): value for key, value in url.query.items()}
    address = url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
    from gateway.databases.postgres import PostgresDatabase  # noqa: PLC0415  # asyncpg takes its time to import.

    try:
        database = PostgresDatabase(name, address, limits)
        await database.open()
    except ValueError as error:
        raise unusable_url(address, _place(name), error) from None
    return database


def _place(name: str) -> str:
    return f"{SETTING}.{name}"
