"""Real databases with orders in them: a file of SQLite, and a PostgreSQL with a role that may read one table."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import orjson
import pytest

from gateway.databases.connections import SqlConnections, open_databases
from gateway.databases.reading import ReadingLimits
from tests.retrieval_svc.postgres import Cluster, postgres, postgres_url

__all__ = ["postgres", "postgres_url"]

ROWS = [(1, "ann", 19.5), (2, "bob", 7.25), (3, "o'hara", 0.1)]
LIMITS = ReadingLimits(connections_max=2, timeout_s=5.0, answer_bytes_max=64 * 1024)


def opened(limits: ReadingLimits = LIMITS, **urls: str) -> AbstractAsyncContextManager[SqlConnections]:
    return open_databases(orjson.dumps(urls).decode(), limits)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "orders %41?#.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total REAL)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    connection.close()
    return path


@pytest.fixture
def sqlite_url(sqlite_file: Path) -> str:
    return "sqlite+aiosqlite:///" + str(sqlite_file).replace("%", "%25").replace("?", "%3F").replace("#", "%23")


async def administer(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=30)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def admin_url(postgres_url: str) -> AsyncIterator[str]:
    """The orders' database as its owner, a superuser, sees it."""
    values = ", ".join(f"({number}, '{name.replace(chr(39), chr(39) * 2)}', {total})" for number, name, total in ROWS)
    await administer(
        postgres_url,
        "CREATE TABLE orders (id integer PRIMARY KEY, customer text, total numeric(12, 2))",
        f"INSERT INTO orders VALUES {values}",
        "CREATE TABLE secrets (word text)",
        "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "GRANT SELECT ON orders TO reader",
    )
    yield postgres_url
    await administer(postgres_url, "DROP OWNED BY reader")
    await asyncio.sleep(0)


@pytest.fixture
def reader_url(admin_url: str) -> str:
    return admin_url.replace("penstock@", "reader@")


@pytest.fixture(params=["sqlite", "postgresql"])
def orders_url(request: pytest.FixtureRequest) -> str:
    """The orders, in either."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "reader_url")
    return url


Postgres = Cluster
