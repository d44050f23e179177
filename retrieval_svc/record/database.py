"""How the record's database is opened, and its transactions begun and ended: in SQLite and in PostgreSQL.

What a statement says is the same in both. What differs is here: how a connection is set up, what begins a transaction, and how
many values go into one statement. Foreign errors become ours here and nowhere else.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Final

import orjson
from sqlalchemy import ARRAY, Column, ColumnElement, Dialect, Table, any_, event, func, insert, literal, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from penstock.database_url import DRIVERS, unusable_url
from penstock.errors import BackendUnavailable

URL_SETTING: Final = "PENSTOCK_RETRIEVAL_DATABASE_URL"

_log = logging.getLogger(__name__)

_BEGIN: Final = "penstock_begin"
"""The execution option that holds the statement by which SQLite begins a transaction; without it each statement is its own."""
# Parameters are callers' texts, which have no place in a log.
_ENGINE: Final[dict[str, Any]] = {"pool_size": 8, "max_overflow": 8, "pool_timeout": 10, "hide_parameters": True}
_CONNECT_TIMEOUT_S: Final = 5
_STATEMENT_TIMEOUT_S: Final = 30
_POSTGRESQL_SETTINGS: Final = {
    "application_name": "penstock-retrieval",
    "statement_timeout": "30s",
    # A writer that is paused or cut off in a transaction holds its shards' locks: it loses them before others give up waiting.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "15s",
    "jit": "off",
}
_SQLITE_PRAGMAS: Final = (
    "busy_timeout=10000",  # First, for the others may find the database locked.
    "journal_mode=WAL",
    "synchronous=FULL",  # A commit is on the disk before it is acknowledged, even if the power fails right after.
    "foreign_keys=ON",
    "cache_size=-16384",  # KiB. Ids come in no order, and their index is larger than the 2 MiB of the default.
    "wal_autocheckpoint=4000",  # Pages: under a bulk load, each page of the index is written back once in several commits.
)
_SQLITE_FULL: Final = {"SQLITE_FULL", "DiskFullError"}


class Database:
    """An engine and the three ways to use it. Every failure of the database is raised as BackendUnavailable.

    Raises FailedPrecondition for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        # A transaction that reads first and writes later fails when another wrote in between, so writers lock SQLite at once.
        self._writer = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        self._snapshots = self.engine.execution_options(
            **({_BEGIN: "BEGIN"} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        )
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite has one writer; who waits for it here is woken in turn, and need not poll.
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; durable when it is left without an error. IntegrityError passes through."""
        turn: AbstractAsyncContextManager[Any] = self._turn if self.is_sqlite else nullcontext()
        with _translated():
            async with turn, self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements, each of which is consistent in itself."""
        with _translated():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A transaction in which all statements see the same state of the database."""
        with _translated():
            async with self._snapshots.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Closes every connection."""
        await self.engine.dispose()


def one_of(column: Column[Any], values: Sequence[Any], connection: AsyncConnection) -> ColumnElement[bool]:
    """Whether a column has one of any number of values, which travel as one parameter."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(orjson.dumps(values).decode()).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows given as tuples in the order of the table's columns.

    The driver gets them as they are: SQLAlchemy's own way through dictionaries took three times as long as the database.
    """
    if rows:
        await connection.exec_driver_sql(_insert_statement(table, connection.dialect), list(rows))


@lru_cache(maxsize=64)
def _insert_statement(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))


def _engine(url: str) -> AsyncEngine:
    try:
        driver = make_url(url).drivername
        if driver not in DRIVERS:
            raise ArgumentError(driver)
        return _sqlite_engine(url) if driver.startswith("sqlite") else _postgresql_engine(url)
    except (ArgumentError, ImportError, ValueError) as error:
        raise unusable_url(url, URL_SETTING, error) from error


def _postgresql_engine(url: str) -> AsyncEngine:
    arguments = {
        "timeout": _CONNECT_TIMEOUT_S,
        "command_timeout": _STATEMENT_TIMEOUT_S,
        "server_settings": _POSTGRESQL_SETTINGS,
    }
    # A connection is tried before it is used, so that a restart of the database costs nobody an error.
    return create_async_engine(url, pool_pre_ping=True, connect_args=arguments, **_ENGINE)


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url, **_ENGINE)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # The driver's own way of beginning would begin too late.
        cursor = connection.cursor()
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        statement = connection.get_execution_options().get(_BEGIN)
        if statement:
            connection.exec_driver_sql(statement)

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise  # Not the database's fault.
    except (DBAPIError, OSError, PoolTimeout, TimeoutError) as error:
        _log.error("the record's database failed: %s", error)
        raise unavailable(error) from error


def unavailable(error: Exception) -> BackendUnavailable:
    """What the caller may know of a database that failed; the whole of it is in the log."""
    cause = getattr(error, "orig", None) or error
    cause = cause.__cause__ or cause
    kind = getattr(cause, "sqlite_errorname", type(cause).__name__)
    if kind in _SQLITE_FULL:
        advice = "its disk is full. Nothing of the write is recorded; make room, then write again"
    elif kind == "SQLITE_BUSY":
        advice = "another process kept it locked for 10 s. Try again"
    else:
        advice = (
            "it cannot be reached or refuses work. Searches go on with what is indexed; writes fail until it is back: check "
            f"that it runs, and {URL_SETTING}"
        )
    return BackendUnavailable(f"the record's database failed ({kind}): {advice}", metadata={"service": "database"})


def refused_at_start(database: Database, error: Exception) -> BackendUnavailable:
    """What the operator is to know of a database that a service cannot start with: which, and what the driver says of it."""
    at = database.engine.url.render_as_string(hide_password=True)
    said = _drivers_words(error.__cause__ if isinstance(error, BackendUnavailable) and error.__cause__ else error)
    message = f"the record's database {at} cannot be used: {said}; check that it runs, and {URL_SETTING}"
    return BackendUnavailable(message, metadata={"service": "database"})


def _drivers_words(error: BaseException) -> str:
    """One line: SQLAlchemy's own words would repeat the statement."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause.__cause__ or cause).splitlines()
    return lines[0] if lines else f"no answer within {_CONNECT_TIMEOUT_S} s"
