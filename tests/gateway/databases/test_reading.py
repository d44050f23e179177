"""What SQLite and PostgreSQL both do when they are read: the same queries, values, bounds and refusals."""

import asyncio
import time
from typing import Any

import pytest

from gateway.backends import Table
from gateway.databases.connections import SqlConnections
from gateway.databases.reading import ReadingLimits
from gateway.nodes.sql_text import parsed
from penstock.errors import BackendUnavailable, FailedPrecondition, FlowMisconfigured, InvalidArgument
from tests.gateway.databases.conftest import LIMITS, opened

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


async def asked(databases: SqlConnections, query: str, rows_max: int = 100, **values: Any) -> Table:
    return await databases.query("orders", parsed(query), values, rows_max)


async def rows(url: str, query: str, rows_max: int = 100, **values: Any) -> list[dict[str, Any]]:
    async with opened(orders=url) as databases:
        return [dict(row) for row in (await asked(databases, query, rows_max, **values)).rows]


async def test_what_is_bound_is_compared_and_never_read_as_sql(orders_url: str) -> None:
    query = "SELECT id FROM orders WHERE customer = :customer AND total < :most ORDER BY id"
    async with opened(orders=orders_url) as databases:
        assert (await asked(databases, query, customer="o'hara", most=1)).rows == ({"id": 3},)
        assert (await asked(databases, query, customer="o'hara", most=0.05)).rows == ()
        assert (await asked(databases, query, customer="x' OR '1'='1", most=100)).rows == ()
        assert (await asked(databases, query, customer="'; DROP TABLE orders; --", most=100)).rows == ()
        assert (await asked(databases, "SELECT count(*) AS n FROM orders")).rows == ({"n": 3},)


async def test_rows_keep_their_order_and_their_columns(orders_url: str) -> None:
    found = await rows(orders_url, "SELECT total, id, customer FROM orders ORDER BY id DESC")
    assert found == [
        {"total": 0.1, "id": 3, "customer": "o'hara"},
        {"total": 7.25, "id": 2, "customer": "bob"},
        {"total": 19.5, "id": 1, "customer": "ann"},
    ]
    assert list(found[0]) == ["total", "id", "customer"]


async def test_a_parameter_may_stand_often_and_be_null_a_number_or_true(orders_url: str) -> None:
    query = "SELECT id FROM orders WHERE (:who IS NULL OR customer = :who) AND id <= :most AND :sure ORDER BY id"
    async with opened(orders=orders_url) as databases:
        assert (await asked(databases, query, who=None, most=2, sure=True)).rows == ({"id": 1}, {"id": 2})
        assert (await asked(databases, query, who="bob", most=2.5, sure=True)).rows == ({"id": 2},)
        assert (await asked(databases, query, who=None, most=9, sure=False)).rows == ()


async def test_a_semicolon_and_a_comment_may_end_a_query(orders_url: str) -> None:
    assert await rows(orders_url, "SELECT id FROM orders WHERE id = 1; -- the first") == [{"id": 1}]
    assert await rows(orders_url, "SELECT id FROM orders WHERE id = 1 -- the first") == [{"id": 1}]


async def test_numbers_that_no_double_is_are_texts_and_bytes_are_written_in_hexadecimal(orders_url: str) -> None:
    big = 2**53 + 1
    blob = "x'00ff'" if "sqlite" in orders_url else "'\\x00ff'::bytea"
    (row,) = await rows(orders_url, f"SELECT {big} AS big, {2**53} AS most, {blob} AS bytes, NULL AS none")
    assert row == {"big": str(big), "most": 2**53, "bytes": "\\x00ff", "none": None}


async def test_rows_and_bytes_are_bounded_and_what_is_left_out_is_told(orders_url: str) -> None:
    async with opened(orders=orders_url) as databases:
        table = await asked(databases, "SELECT id FROM orders ORDER BY id", rows_max=2)
        assert (table.rows, table.is_whole) == (({"id": 1}, {"id": 2}), False)
        assert (await asked(databases, "SELECT id FROM orders", rows_max=3)).is_whole
        text = "CAST(:text AS text)"
        wide = f"SELECT {text} AS wide FROM orders a, orders b, orders c, orders d, orders e"
        table = await asked(databases, wide, text="w" * 1000, rows_max=1000)
        assert not table.is_whole
        assert 60 <= len(table.rows) <= 64


async def test_a_query_that_does_not_end_is_stopped_and_the_database_goes_on(orders_url: str) -> None:
    limits = ReadingLimits(connections_max=1, timeout_s=0.4, answer_bytes_max=10_000)
    async with opened(limits, orders=orders_url) as databases:
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(FailedPrecondition, match=r"took longer than the 0\.4 s"):
                await asked(databases, ENDLESS)
            assert time.monotonic() - begun < 2
        assert len((await asked(databases, "SELECT id FROM orders")).rows) == 3


async def test_whoever_leaves_stops_the_query(orders_url: str) -> None:
    limits = ReadingLimits(connections_max=1, timeout_s=60.0, answer_bytes_max=10_000)
    async with opened(limits, orders=orders_url) as databases:
        task = asyncio.create_task(asked(databases, ENDLESS))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):  # With one connection, this waits for the one before.
            assert len((await asked(databases, "SELECT id FROM orders")).rows) == 3


async def test_more_queries_than_connections_wait_their_turn(orders_url: str) -> None:
    async with opened(orders=orders_url) as databases:
        tables = await asyncio.gather(*(asked(databases, "SELECT :n AS n", n=number) for number in range(40)))
    assert [table.rows[0]["n"] for table in tables] == list(range(40))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM nowhere",
        "SELECT FROM FROM",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
        "SELECT 1)",
    ],
)
async def test_what_the_database_refuses_is_the_flows_fault(orders_url: str, query: str) -> None:
    async with opened(orders=orders_url) as databases:
        with pytest.raises(FlowMisconfigured, match="refuses the query") as refused:
            await asked(databases, query)
        assert refused.value.metadata["connection"] == "orders"
        assert (await asked(databases, "SELECT count(*) AS n FROM orders")).rows == ({"n": 3},)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400, "a\0b"])
async def test_a_value_that_no_database_has_room_for_is_the_callers_fault(orders_url: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=":x"):
        await rows(orders_url, "SELECT :x AS x", x=value)


async def test_a_connection_that_is_not_declared_is_told_with_those_that_are(sqlite_url: str) -> None:
    async with opened(orders=sqlite_url) as databases:
        with pytest.raises(FlowMisconfigured, match="did you mean 'orders'"):
            await databases.query("order", parsed("SELECT 1"), {}, 1)


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:////no/such/folder/x.db", "postgresql+asyncpg://reader@127.0.0.1:1/x"])
async def test_a_database_that_is_not_there_is_unavailable(url: str) -> None:
    async with opened(orders=url) as databases:
        with pytest.raises(BackendUnavailable, match="'orders' cannot be used"):
            await asked(databases, "SELECT 1")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("nonsense", "must be a JSON object of names and URLs"),
        ('["sqlite+aiosqlite:///x.db"]', "must be a JSON object"),
        ('{"orders": 3}', "must be a JSON object"),
        ('{"Orders": "sqlite+aiosqlite:///x.db"}', "found 'Orders'"),
        ('{"orders": "mysql+aiomysql://ann:secret@db/x"}', r"CONNECTIONS\.orders begins with 'mysql\+aiomysql://'"),
        ('{"orders": "postgresql://ann:secret@db/x"}', "which cannot be used"),
        ('{"orders": "postgresql+asyncpg://ann:secret@db:port/x"}', "cannot be read behind"),
        ('{"orders": "sqlite+aiosqlite://"}', "names no file"),
        ('{"orders": "sqlite+aiosqlite:///:memory:"}', "names no file"),
    ],
)
async def test_what_is_declared_wrongly_stops_the_start_without_telling_a_password(declared: str, message: str) -> None:
    from gateway.databases.connections import open_databases

    with pytest.raises(FailedPrecondition, match=message) as refused:
        async with open_databases(declared, LIMITS):
            pass
    assert "secret" not in refused.value.message
