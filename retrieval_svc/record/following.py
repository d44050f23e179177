"""Reading a shard: its log, for those who follow it, and its rows, for those who begin.

Both read what is stored now. A row that was stored at n and replaced at m > n is no longer there to be read, so a state at n
would lack the row's id although its chunk was never deleted. `changes` therefore goes on to m when it would end before it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.errors import CollectionNotFound
from retrieval_svc.record import tables
from retrieval_svc.record.database import Database
from retrieval_svc.record.rows import STORED, with_vectors
from retrieval_svc.shards.follower import LogTrimmedError
from retrieval_svc.values import Changes, Rows

_PART_BYTES: Final = 16 * 2**20
"""About how much of the vectors is read at a time."""
_PART_ROWS_MIN: Final = 64
_DELETED_AT_A_TIME: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLog:
    """The log and the rows of one shard. Raises CollectionNotFound when its collection is gone."""

    database: Database
    uid: int
    shard: int
    dimension: int
    entries_max: int = 100_000
    """Most entries that are read at once, however far the changes would have to go on."""

    async def changes(self, after: int, limit: int) -> Changes:
        """The log above `after`: about `limit` entries, more where the state between would lack a chunk that is not deleted.

        Raises LogTrimmedError when it no longer goes back to `after`, or not that far (an older record was restored), or when
        the changes would go on for too long.
        """
        async with self.database.snapshot() as connection:
            last, trimmed = await self._bounds(connection)
            if not trimmed <= after <= last:
                raise LogTrimmedError(f"the log of shard {self.shard} goes from {trimmed} to {last}, which is not from {after}")
            through = await self._complete(connection, after, min(after + limit, last))
            if through - after > max(limit, self.entries_max):
                raise LogTrimmedError(f"shard {self.shard} would be whole only at {through}, which is too far from {after}")
            stored = (await connection.execute(self._rows_between(after, through))).all()
            gone = (await connection.execute(self._removals_between(after, through))).all()
        return Changes(
            after=after,
            through=through,
            stored=with_vectors(stored, self.dimension),
            removed=np.array([removed for _, removed in gone], dtype=np.int64),
            removed_at=np.array([at for at, _ in gone], dtype=np.int64),
        )

    async def rows(self, through: int) -> AsyncIterator[Rows]:
        """What is stored now under numbers up to `through`, ascending, in parts.

        Rows that were replaced while this read are missing: whoever begins with them follows the log up to the position that
        the shard has when the last part was read, before it lets anybody search.
        """
        after, limit = 0, max(_PART_ROWS_MIN, _PART_BYTES // (4 * self.dimension))
        while True:
            async with self.database.reading() as connection:
                part = (await connection.execute(self._rows_between(after, through).limit(limit))).all()
            if not part:
                return
            yield with_vectors(part, self.dimension)
            after = part[-1].sequence

    async def trim(self, through: int) -> None:
        """Forgets the removals up to `through`. Nobody can follow the log from before it any more."""
        table = tables.shards.c
        behind = and_(self._here(tables.shards), table.trimmed_through < through, table.last_sequence >= through)
        async with self.database.writing() as connection:
            # Said first, so that nobody reads a log with some of its removals missing.
            await connection.execute(update(tables.shards).where(behind).values(trimmed_through=through))
            _, trimmed = await self._bounds(connection)
        await self.delete(tables.removals, min(through, trimmed))

    async def delete(self, table: Table, through: int) -> None:
        """Deletes a table's entries up to `through`, a part in each transaction, so that no other write waits for long."""
        mine = and_(self._here(table), table.c.sequence <= through)
        part = select(table.c.sequence).where(mine).order_by(table.c.sequence).limit(_DELETED_AT_A_TIME).subquery()
        while True:
            async with self.database.writing() as connection:
                end = await connection.scalar(select(func.max(part.c.sequence)))
                if end is None:
                    return
                await connection.execute(delete(table).where(mine, table.c.sequence <= end))

    async def _bounds(self, connection: AsyncConnection) -> tuple[int, int]:
        table = tables.shards
        row = (
            await connection.execute(select(table.c.last_sequence, table.c.trimmed_through).where(self._here(table)))
        ).first()
        if row is None:
            raise CollectionNotFound("the collection was deleted")
        return row.last_sequence, row.trimmed_through

    async def _complete(self, connection: AsyncConnection, after: int, through: int) -> int:
        """The first position from `through` on at which nothing is missing that is not deleted."""
        table = tables.removals
        while True:
            replaced = and_(table.c.replaced, table.c.removed_sequence > after, table.c.removed_sequence <= through)
            later = and_(self._here(table), table.c.sequence > through, replaced)
            end = await connection.scalar(select(func.max(table.c.sequence)).where(later))
            if end is None:
                return through
            through = end

    def _rows_between(self, after: int, through: int) -> Select[Any]:
        table = tables.chunks
        return select(*STORED, table.c.vector).where(self._between(table, after, through)).order_by(table.c.sequence)

    def _removals_between(self, after: int, through: int) -> Select[Any]:
        table = tables.removals
        columns = select(table.c.sequence, table.c.removed_sequence)
        return columns.where(self._between(table, after, through)).order_by(table.c.sequence)

    def _between(self, table: Table, after: int, through: int) -> ColumnElement[bool]:
        return and_(self._here(table), table.c.sequence > after, table.c.sequence <= through)

    def _here(self, table: Table) -> ColumnElement[bool]:
        return and_(table.c.collection_uid == self.uid, table.c.shard == self.shard)
