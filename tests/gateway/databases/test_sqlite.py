"""What a hostile query can't do to a file of SQLite, and to those beside it."""

import sqlite3
from pathlib import Path

import pytest

from gateway.backends import SqlQuery
from gateway.databases.reading import ReadingLimits
from gateway.nodes.sql_text import parsed
from penstock.errors import BackendUnavailable, FailedPrecondition, FlowMisconfigured, PenstockError
from tests.gateway.databases.conftest import opened


def content(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM orders").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orders",
        "UPDATE orders SET total = 0",
        "INSERT INTO orders VALUES (9, 'eve', 1)",
        "DROP TABLE orders",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "ATTACH DATABASE '{folder}/other.db' AS other",
        "ATTACH DATABASE ':memory:' AS other",
        "VACUUM INTO '{folder}/copy.db'",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA table_info(orders)",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('{folder}/evil.so')",
        "SELECT writefile('{folder}/mine', 'x')",
        "SELECT readfile('/etc/hostname')",
        "SELECT fts3_tokenizer('simple')",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
        "SELECT 1; DELETE FROM orders",
        "SELECT ?1",
    ],
)
async def test_a_statement_that_does_more_than_select_is_refused_by_sqlite(
    sqlite_url: str, sqlite_file: Path, statement: str
) -> None:
    before, beside = content(sqlite_file), sorted(sqlite_file.parent.iterdir())
    query = SqlQuery(pieces=(statement.format(folder=sqlite_file.parent),), parameters=())  # Past our own reading of it.
    async with opened(orders=sqlite_url) as databases:
        with pytest.raises(FlowMisconfigured, match="refuses the query"):
            await databases.query("orders", query, {}, 10)
        assert (await databases.query("orders", parsed("SELECT count(*) AS n FROM orders"), {}, 1)).rows == ({"n": 3},)
    assert content(sqlite_file) == before
    assert sorted(sqlite_file.parent.iterdir()) == beside


@pytest.mark.parametrize(
    "query",
    [
        "SELECT zeroblob(1000000000)",
        "SELECT replace(hex(zeroblob(60000)), '00', 'abcdefgh')",
        "SELECT group_concat(hex(randomblob(30000)), '') FROM orders",
        "SELECT randomblob(900000000)",
    ],
)
async def test_a_value_that_is_too_large_is_never_made(sqlite_url: str, query: str) -> None:
    async with opened(orders=sqlite_url) as databases:
        with pytest.raises(PenstockError) as refused:
            await databases.query("orders", parsed(query), {}, 10)
    assert isinstance(refused.value, FailedPrecondition)


async def test_a_file_that_is_written_meanwhile_can_be_read(sqlite_url: str, sqlite_file: Path) -> None:
    writer = sqlite3.connect(sqlite_file, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM orders")
    count = parsed("SELECT count(*) AS n FROM orders")
    try:
        async with opened(orders=sqlite_url) as databases:
            assert (await databases.query("orders", count, {}, 1)).rows == ({"n": 3},)
            writer.execute("COMMIT")
            assert (await databases.query("orders", count, {}, 1)).rows == ({"n": 0},)
    finally:
        writer.close()


async def test_a_file_that_is_locked_is_unavailable_after_a_moment(sqlite_url: str, sqlite_file: Path) -> None:
    writer = sqlite3.connect(sqlite_file, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    try:
        async with opened(ReadingLimits(timeout_s=5.0), orders=sqlite_url) as databases:
            with pytest.raises(BackendUnavailable, match="locked"):
                await databases.query("orders", parsed("SELECT 1 FROM orders"), {}, 1)
    finally:
        writer.close()


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database " * 1000)
    async with opened(orders=f"sqlite+aiosqlite:///{tmp_path}/x.db") as databases:
        with pytest.raises(FlowMisconfigured, match="not a database"):
            await databases.query("orders", parsed("SELECT * FROM sqlite_schema"), {}, 1)
