"""PostgreSQL, in transactions that only read and are never committed. The only importer of asyncpg.

A query stands inside of another one, which makes JSON of its rows and bounds them before they are sent: nothing but a query
that reads can stand there, and not even WITH may change anything there. A role that may do more than read tables is refused,
because what a superuser runs can reach the server's files and programs.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # It publishes no types.

from gateway.backends import Scalar, SqlQuery, Table
from gateway.databases.reading import ReadingLimits, check_fits, decimal_number, numbered, too_slow, whole_number, written
from gateway.values import DEPTH_MAX, is_deeper
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable, FailedPrecondition, FlowMisconfigured, InvalidArgument, PenstockError

_LINES: Final = """
SELECT CASE WHEN penstock_size <= {bytes_max} THEN penstock_line END FROM (
  SELECT penstock_line, sum(octet_length(penstock_line)) OVER (ROWS UNBOUNDED PRECEDING) AS penstock_size FROM (
    SELECT row_to_json(penstock_row)::text AS penstock_line FROM (
{query}
    ) AS penstock_row LIMIT {rows}
  ) AS penstock_lines
) AS penstock_sizes"""

_ROLE: Final = """
SELECT rolname, rolsuper, ARRAY(
  SELECT granted FROM unnest(ARRAY['pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files']) AS granted
  WHERE EXISTS (SELECT 1 FROM pg_roles WHERE rolname = granted) AND pg_has_role(current_user, granted, 'MEMBER')
) AS powers FROM pg_roles WHERE rolname = current_user"""

_ENDING_S: Final = 2.0
"""What the server may take to say that it stopped a query, before its connection is dropped."""

_IDLE_S: Final = 60.0
_UNUSABLE: Final = frozenset({"08", "28", "3D", "53", "57"})
"""Classes of SQLSTATE: connections, passwords, no such database, nothing left of something, an operator's doing."""


class PostgresDatabase:
    """The Database in PostgreSQL. Inside a running event loop; connections are made when they are needed."""

    def __init__(self, name: str, url: str, limits: ReadingLimits) -> None:
        self._name = name
        self._limits = limits
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=limits.connections_max,
            max_inactive_connection_lifetime=_IDLE_S,
            timeout=limits.timeout_s,
            command_timeout=limits.timeout_s + _ENDING_S,
            init=self._check_role,
            server_settings={"default_transaction_read_only": "on", "application_name": "penstock-gateway"},
        )

    async def open(self) -> None:
        """Makes it ready; nothing is connected to yet."""
        await self._pool

    async def query(self, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        check_fits(values)
        timeout_s = remaining_s(self._limits.timeout_s)
        sql, arguments = self._statement(query, values, rows_max)
        try:
            async with asyncio.timeout(timeout_s + _ENDING_S):
                records = await self._fetch(sql, arguments, timeout_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise self._translated(error, timeout_s) from error
        lines = [record[0] for record in records]
        whole = [line for line in lines if line is not None][:rows_max]
        return Table(rows=tuple(self._row(line) for line in whole), is_whole=len(whole) == len(lines))

    async def close(self) -> None:
        self._pool.terminate()

    async def _fetch(self, sql: str, arguments: list[Scalar], timeout_s: float) -> list[Any]:
        async with self._connected(timeout_s) as connection:
            transaction = connection.transaction(readonly=True)
            await transaction.start()
            try:
                await connection.execute(f"SET LOCAL statement_timeout = {max(1, round(timeout_s * 1000))}")
                records: list[Any] = await connection.fetch(sql, *arguments)
                return records
            finally:
                await transaction.rollback()

    @asynccontextmanager
    async def _connected(self, timeout_s: float) -> AsyncIterator[Any]:
        """A connection. What its last user set, locked or listened to is undone when it is given back."""
        try:
            connection = await self._pool.acquire(timeout=timeout_s)
        except TimeoutError:
            message = f"the database {self._name!r} had no connection to spare within {timeout_s:.3g} s"
            raise BackendUnavailable(message, metadata={"connection": self._name}) from None
        try:
            yield connection
        finally:
            await self._pool.release(connection, timeout=_ENDING_S)

    async def _check_role(self, connection: Any) -> None:
        role = await connection.fetchrow(_ROLE)
        if role["rolsuper"] or role["powers"]:
            what = "is a superuser" if role["rolsuper"] else f"has the role {role['powers'][0]}"
            raise FlowMisconfigured(
                f"the role {role['rolname']!r} of the connection {self._name!r} {what}, so that its queries could reach the "
                "database server's files and programs: give the connection a role that may SELECT from its tables and no more",
                metadata={"connection": self._name},
            )

    def _statement(self, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> tuple[str, list[Scalar]]:
        bound = [name for name in dict.fromkeys(query.parameters) if values[name] is not None]
        numbers = numbered(bound)
        inner = written(query, lambda name: _placeholder(numbers.get(name), values[name]))
        sql = _LINES.format(query=inner, bytes_max=self._limits.answer_bytes_max, rows=rows_max + 1)
        return sql, [values[name] for name in bound]

    def _row(self, line: str) -> dict[str, Any]:
        try:
            row: dict[str, Any] = json.loads(line, parse_int=whole_number, parse_float=decimal_number)
            if not is_deeper(row, DEPTH_MAX):
                return row
        except RecursionError:
            pass
        raise FailedPrecondition(f"a JSON value of the database {self._name!r} is nested more than {DEPTH_MAX} deep")

    def _translated(self, error: Exception, timeout_s: float) -> PenstockError:
        where = {"connection": self._name}
        state = str(getattr(error, "sqlstate", "") or "")
        if state == "57014" or isinstance(error, TimeoutError):
            return too_slow(self._name, timeout_s)
        if isinstance(error, OSError) or state[:2] in _UNUSABLE:
            return BackendUnavailable(f"the database {self._name!r} cannot be used: {error}", metadata=where)
        if state[:2] == "22" or isinstance(error, ValueError):
            return InvalidArgument(f"a value does not fit the query of the database {self._name!r}: {error}", metadata=where)
        return FlowMisconfigured(f"the database {self._name!r} refuses the query: {error}", metadata=where)


def _placeholder(number: int | None, value: Scalar) -> str:
    """How a value stands in a query. With its type: PostgreSQL would guess, and asyncpg then refuse what does not fit."""
    if number is None:
        return "NULL"
    kind = "boolean" if isinstance(value, bool) else "bigint" if isinstance(value, int) else "text"
    return f"${number}::{'double precision' if isinstance(value, float) else kind}"
