"""Hints that the record has changed, so that those who follow it need not ask all the time.

PostgreSQL says so itself (LISTEN, NOTIFY). Of SQLite, the file that every commit is appended to is looked at every 20 ms, which
costs one call of the system and wakes no thread. Behind both, the shards' positions are read once a second: a hint that is lost
costs a second and no more.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ARRAY, Text, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.errors import BackendUnavailable
from retrieval_svc.record import tables
from retrieval_svc.record.database import Database

_log = logging.getLogger(__name__)

_CHANNEL: Final = "penstock_retrieval"
_CATALOG: Final = "catalog"
_COUNTER_S: Final = 0.02
_POLL_S: Final = 1.0
_RETRY_S: Final = 0.5

Positions = dict[tuple[int, int], int]
"""Collection uid and shard to the sequence number of the last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What changed: shards and how far their logs go now; `catalog`: collections were created or deleted."""

    positions: Mapping[tuple[int, int], int]
    catalog: bool = False


async def notify(connection: AsyncConnection, uid: int, positions: Mapping[int, int]) -> None:
    """Tells the watchers, once the transaction is committed, how far a collection's shards have come."""
    await _notify(connection, [f"{uid}:{shard}:{sequence}" for shard, sequence in positions.items()])


async def notify_catalog(connection: AsyncConnection) -> None:
    """Tells the watchers, once the transaction is committed, that there are other collections."""
    await _notify(connection, [_CATALOG])


async def _notify(connection: AsyncConnection, payloads: list[str]) -> None:
    if connection.dialect.name == "postgresql" and payloads:
        each = func.unnest(literal(payloads, ARRAY(Text))).column_valued("payload")
        await connection.execute(select(func.pg_notify(_CHANNEL, each)))


async def watch(database: Database) -> AsyncIterator[Hint]:
    """Hints for ever, beginning with where every shard is. While the database fails there are none; afterwards they go on.

    Hints that nobody took yet are merged into one, so a slow reader misses nothing and nothing piles up.
    """
    news = _News()
    task = asyncio.create_task(_gather(database, news))
    try:
        while True:
            yield await news.next()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass(slots=True)
class _News:
    """What was heard and not yet told."""

    _known: Positions | None = None
    _positions: Positions = field(default_factory=dict)
    _catalog: bool = False
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self) -> Hint:
        await self._heard.wait()
        self._heard.clear()
        hint = Hint(positions=self._positions, catalog=self._catalog)
        self._positions, self._catalog = {}, False
        return hint

    def all(self, positions: Positions) -> None:
        """Hears where every shard is."""
        known = self._known or {}
        self._catalog |= self._known is None or {uid for uid, _ in positions} != {uid for uid, _ in known}
        for key, sequence in positions.items():
            if known.get(key) != sequence:
                self._advance(key, sequence)
        self._known = positions
        if self._catalog or self._positions:
            self._heard.set()

    def one(self, payload: str) -> None:
        """Hears what a transaction told."""
        if payload == _CATALOG:
            self._catalog = True
        else:
            uid, shard, sequence = map(int, payload.split(":"))
            self._advance((uid, shard), sequence)
            if self._known is not None:
                self._known[uid, shard] = sequence
        self._heard.set()

    def _advance(self, key: tuple[int, int], sequence: int) -> None:
        # What was read may be older than what was told meanwhile.
        self._positions[key] = max(sequence, self._positions.get(key, 0))


async def _gather(database: Database, news: _News) -> None:
    """Hears what there is to hear, over a new connection whenever one fails."""
    gather = _gather_sqlite if database.is_sqlite else _gather_postgresql
    while True:
        try:
            await gather(database, news)
        except BackendUnavailable:
            pass  # Told where it was raised.
        except Exception as error:  # noqa: BLE001  # The driver's own, of many kinds.
            _log.warning("changes of the record are not heard, trying again: %r", error)
        await asyncio.sleep(_RETRY_S)


async def _gather_sqlite(database: Database, news: _News) -> None:
    log = Path(f"{database.engine.url.database}-wal")
    async with database.reading() as connection:
        asked_at, before, settled = float("-inf"), None, False
        while True:
            now, clock_s = _written(log), asyncio.get_running_loop().time()
            # Once more after it has come to rest: what was seen being written may not have been committed yet.
            if now != before or not settled or clock_s - asked_at > _POLL_S:
                asked_at, before, settled = clock_s, now, now == before
                news.all(await _positions(connection))
            await asyncio.sleep(_COUNTER_S)


def _written(log: Path) -> tuple[int, int] | None:
    """When the file was last written to, and its size; None where there is none."""
    try:
        stat = log.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


async def _gather_postgresql(database: Database, news: _News) -> None:
    lost = asyncio.Event()
    async with _listening(database, news.one, lost.set) as connection:
        while not lost.is_set():
            # Over the connection that listens, so that one that is dead is noticed.
            news.all(await _positions(connection))
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _POLL_S)


@asynccontextmanager
async def _listening(
    database: Database, hear: Callable[[str], None], lost: Callable[[], None]
) -> AsyncIterator[AsyncConnection]:
    def heard(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        hear(payload)

    def ended(_connection: object) -> None:
        lost()

    async with database.reading() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.add_termination_listener(ended)
        await driver.add_listener(_CHANNEL, heard)
        try:
            yield connection
        finally:
            driver.remove_termination_listener(ended)
            await connection.invalidate()  # Nobody else gets a connection that still listens.


async def _positions(connection: AsyncConnection) -> Positions:
    table = tables.shards.c
    rows = await connection.execute(select(table.collection_uid, table.shard, table.last_sequence))
    return {(uid, shard): sequence for uid, shard, sequence in rows}
