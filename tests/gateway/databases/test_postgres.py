"""What a hostile query can't do to PostgreSQL, and what its types read as."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.backends import SqlQuery, Table
from gateway.databases.connections import SqlConnections
from gateway.databases.reading import ReadingLimits
from gateway.nodes.sql_text import parsed
from penstock.errors import BackendUnavailable, FailedPrecondition, FlowMisconfigured, InvalidArgument
from tests.gateway.databases.conftest import administer, opened
from tests.retrieval_svc.postgres import Cluster


async def asked(databases: SqlConnections, query: str, **values: Any) -> Table:
    return await databases.query("orders", parsed(query), values, 10)


async def as_admin(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=30)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orders",
        "INSERT INTO orders VALUES (9, 'eve', 1)",
        "COPY orders TO '/tmp/penstock-copied'",
        "COPY orders TO PROGRAM 'touch /tmp/penstock-copied'",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "COMMIT",
        "CALL nothing()",
        "LISTEN x",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1) AS a) AS b) AS c; DELETE FROM orders; --",
        "SELECT 1) AS x; COMMIT; SELECT (SELECT 1",
        "SELECT id INTO TEMP mine FROM orders",
        "SELECT id FROM orders FOR UPDATE",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone",
        "SELECT * FROM secrets",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
        "SELECT nextval('counter')",
        "SELECT pg_reload_conf()",
        "SELECT $1",
    ],
)
async def test_a_statement_that_does_more_than_read_is_refused_by_postgresql(
    admin_url: str, reader_url: str, statement: str
) -> None:
    # More than a careful operator grants: what keeps the data is not only what the role lacks.
    await administer(admin_url, "GRANT ALL ON orders TO reader", "CREATE SEQUENCE counter", "GRANT ALL ON counter TO reader")
    query = SqlQuery(pieces=(statement,), parameters=())  # Past our own reading of it.
    async with opened(orders=reader_url) as databases:
        with pytest.raises(FlowMisconfigured, match="refuses the query"):
            await databases.query("orders", query, {}, 10)
        assert (await asked(databases, "SELECT count(*) AS n FROM orders")).rows == ({"n": 3},)
    assert await as_admin(admin_url, "SELECT count(*) FROM orders") == 3
    assert not Path("/tmp/penstock-copied").exists()


async def test_nothing_that_a_query_sets_or_locks_outlives_it(admin_url: str, reader_url: str) -> None:
    limits = ReadingLimits(connections_max=1, timeout_s=5.0)
    async with opened(limits, orders=reader_url) as databases:
        await asked(databases, "SELECT set_config('statement_timeout', '0', false), set_config('search_path', 'evil', false)")
        await asked(databases, "SELECT lo_create(4711)::text")
        await asked(databases, "SELECT set_config('default_transaction_read_only', 'off', false), pg_advisory_lock(7)::text")
        shown = "SELECT current_setting('search_path') AS path, current_setting('transaction_read_only') AS only"
        assert (await asked(databases, shown)).rows == ({"path": '"$user", public', "only": "on"},)
        assert await as_admin(admin_url, "SELECT pg_try_advisory_lock(7)")
        assert await as_admin(admin_url, "SELECT count(*) FROM pg_largeobject_metadata") == 0


async def test_a_query_that_sleeps_is_stopped_even_where_it_lifts_its_own_limit(reader_url: str) -> None:
    limits = ReadingLimits(connections_max=1, timeout_s=0.3)
    async with opened(limits, orders=reader_url) as databases:
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match="took longer"):
                await asked(databases, "SELECT set_config('statement_timeout', '0', true), pg_sleep(60)::text")
        assert (await asked(databases, "SELECT 1 AS n")).rows == ({"n": 1},)


async def test_a_value_that_is_too_large_is_never_sent(reader_url: str) -> None:
    async with opened(orders=reader_url) as databases:
        table = await asked(databases, "SELECT repeat('x', 50000000) AS wide")
        assert (table.rows, table.is_whole) == ((), False)


async def test_a_superuser_and_a_role_that_reads_files_are_refused(admin_url: str, reader_url: str) -> None:
    async with opened(orders=admin_url) as databases:
        for _ in range(2):
            with pytest.raises(FlowMisconfigured, match="is a superuser"):
                await asked(databases, "SELECT 1")
    await administer(admin_url, "GRANT pg_read_server_files TO reader")
    try:
        async with opened(orders=reader_url) as databases:
            with pytest.raises(FlowMisconfigured, match="has the role pg_read_server_files"):
                await asked(databases, "SELECT 1")
    finally:
        await administer(admin_url, "REVOKE pg_read_server_files FROM reader")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("19.90::numeric", 19.9),
        ("0.1::numeric + 0.2", 0.3),
        ("12345678901234567.89::numeric", "12345678901234567.89"),
        ("9007199254740993", "9007199254740993"),
        ("1e300::float8 * 10", 1e301),
        ("'NaN'::float8", "NaN"),
        ("'Infinity'::numeric", "Infinity"),
        ("date '2026-01-02'", "2026-01-02"),
        ("timestamptz '2026-01-02 03:04:05.5+00' AT TIME ZONE 'UTC'", "2026-01-02T03:04:05.5"),
        ("interval '1 day 2 hours'", "1 day 02:00:00"),
        ("'6d0a2c61-8b3b-4f40-9d6b-3c2c3c2c3c2c'::uuid", "6d0a2c61-8b3b-4f40-9d6b-3c2c3c2c3c2c"),
        ("ARRAY[1, NULL, 3]", [1, None, 3]),
        ('\'{"a": [1.5, {"b": null}]}\'::jsonb', {"a": [1.5, {"b": None}]}),
        ("row(1, 'x')", {"f1": 1, "f2": "x"}),
        ("int4range(1, 5)", "[1,5)"),
        ("true", True),
        ("inet '10.0.0.1'", "10.0.0.1"),
        ("'\\x6869'::bytea", "\\x6869"),
    ],
)
async def test_every_type_has_a_json_value(reader_url: str, expression: str, value: object) -> None:
    query = SqlQuery(pieces=(f"SELECT {expression} AS x",), parameters=())
    async with opened(orders=reader_url) as databases:
        assert (await databases.query("orders", query, {}, 1)).rows == ({"x": value},)


async def test_a_text_becomes_what_the_query_casts_it_to(reader_url: str) -> None:
    query = "SELECT CAST(:day AS date) - 1 AS before, CAST(:id AS integer) + 1 AS next, :name || '!' AS loud"
    async with opened(orders=reader_url) as databases:
        table = await asked(databases, query, day="2026-03-01", id="41", name="hey")
        assert table.rows == ({"before": "2026-02-28", "next": 42, "loud": "hey!"},)
        with pytest.raises(InvalidArgument, match="invalid input syntax for type integer"):
            await asked(databases, query, day="2026-03-01", id="many", name="hey")


async def test_a_json_value_that_is_nested_too_deep_is_refused(reader_url: str) -> None:
    for depth in (40, 3000):
        query = SqlQuery(pieces=(f"SELECT '{'[' * depth}{']' * depth}'::jsonb AS x",), parameters=())
        async with opened(orders=reader_url) as databases:
            with pytest.raises(FailedPrecondition, match="nested more than 32 deep"):
                await databases.query("orders", query, {}, 1)


async def test_a_restart_of_postgresql_needs_none_of_ours(postgres: Cluster, reader_url: str) -> None:
    async with opened(orders=reader_url) as databases:
        assert len((await asked(databases, "SELECT id FROM orders")).rows) == 3
        await asyncio.to_thread(postgres.stop)
        try:
            with pytest.raises(BackendUnavailable):
                await asked(databases, "SELECT id FROM orders")
        finally:
            await asyncio.to_thread(postgres.start)
        try:
            found = await asked(databases, "SELECT id FROM orders")
        except BackendUnavailable:  # The connection that it held was cut; the next one is new.
            found = await asked(databases, "SELECT id FROM orders")
        assert len(found.rows) == 3
