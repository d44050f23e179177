"""SQLite, opened for reading. A query can neither change the file nor reach another one, and it ends in time.

The file is opened with mode=ro, the connection is query_only, and an authorizer lets a statement do nothing but select: no
ATTACH, no PRAGMA, no temporary tables, no function that reads files. Opening takes a tenth of a millisecond, so that every
query has a connection of its own and none sees what another one did to it.
"""

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gateway.backends import Scalar, SqlQuery, Table
from gateway.databases.reading import EXACT_MAX, ReadingLimits, check_fits, numbered, size_of, too_slow, written
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable, FailedPrecondition, FlowMisconfigured, PenstockError

_STEPS: Final = 1000
"""Instructions of SQLite's machine between two looks at the time: about 10 microseconds of work."""

_ROWS_AT_ONCE: Final = 16
_SELECTING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN: Final = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
_UNUSABLE: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR})


class SqliteDatabase:
    """The Database in a file of SQLite."""

    def __init__(self, name: str, path: Path, limits: ReadingLimits) -> None:
        self._name = name
        self._path = path
        self._limits = limits
        self._threads = ThreadPoolExecutor(limits.connections_max, thread_name_prefix=f"sqlite-{name}")

    async def query(self, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        check_fits(values)
        timeout_s = remaining_s(self._limits.timeout_s)
        stop = _Stop(timeout_s)
        read = partial(self._read, query, values, rows_max, stop)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except TimeoutError:
            raise too_slow(self._name, timeout_s) from None
        finally:
            stop.now()  # Whoever waited has left; the thread follows.

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int, stop: "_Stop") -> Table:
        numbers = numbered(query.parameters)
        sql = written(query, lambda name: f"?{numbers[name]}")
        try:
            with closing(self._connect(stop)) as connection:
                return self._fetch(connection.execute(sql, [values[name] for name in numbers]), rows_max)
        except sqlite3.Error as error:
            raise self._translated(error, stop) from error

    def _connect(self, stop: "_Stop") -> sqlite3.Connection:
        # Of what is read-only already, a lock can only be waited for while another process writes.
        address = f"file:{quote(str(self._path))}?mode=ro"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=min(1.0, self._limits.timeout_s))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._limits.answer_bytes_max)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.set_authorizer(_authorise)
        connection.set_progress_handler(stop.is_due, _STEPS)
        return connection

    def _fetch(self, cursor: sqlite3.Cursor, rows_max: int) -> Table:
        if cursor.description is None:
            raise FlowMisconfigured(f"the database {self._name!r} refuses the query: it gives no rows")
        columns = [column[0] for column in cursor.description]
        rows: list[dict[str, Any]] = []
        left = self._limits.answer_bytes_max
        while found := cursor.fetchmany(_ROWS_AT_ONCE):
            for each in found:
                row = dict(zip(columns, map(_as_json, each), strict=True))
                left -= sum(size_of(value) + len(name) + 4 for name, value in row.items())
                if len(rows) == rows_max or left < 0:
                    return Table(rows=tuple(rows), is_whole=False)
                rows.append(row)
        return Table(rows=tuple(rows))

    def _translated(self, error: sqlite3.Error, stop: "_Stop") -> PenstockError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        where = {"connection": self._name}
        if code == sqlite3.SQLITE_INTERRUPT or stop.is_due():
            return too_slow(self._name, self._limits.timeout_s)
        if code in _UNUSABLE:
            return BackendUnavailable(f"the database {self._name!r} cannot be used: {error}", metadata=where)
        if code == sqlite3.SQLITE_TOOBIG:
            most = self._limits.answer_bytes_max
            return FailedPrecondition(
                f"a value of the database {self._name!r} has more than {most} bytes; select less of it", metadata=where
            )
        return FlowMisconfigured(f"the database {self._name!r} refuses the query: {error}", metadata=where)


class _Stop:
    """When a query has to end; asked from the query's thread."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._now = threading.Event()

    def now(self) -> None:
        self._now.set()

    def is_due(self) -> bool:
        return self._now.is_set() or time.monotonic() > self._end


def _authorise(action: int, first: str | None, second: str | None, *_: str | None) -> int:  # noqa: ARG001  # SQLite's shape.
    allowed = action in _SELECTING or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in _FORBIDDEN)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"  # As PostgreSQL writes them.
    if isinstance(value, int):
        return value if -EXACT_MAX <= value <= EXACT_MAX else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
