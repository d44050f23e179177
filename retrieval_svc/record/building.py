"""Collections that are built in bulk: written part by part, unseen, and put in place at once.

A collection that is being built has rows but no shards, and an id that nobody can ask for, so nothing lists, opens or follows
it. Publishing gives it both in one transaction, which also takes them from a collection that it replaces: whoever reads the
record sees the one or the other. It needs no log before its end, because nobody has been anywhere in it: its shards say that
their logs are trimmed up to there.

How far a build has come is recorded with the rows, in the same transaction, so no crash can make them differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.errors import AlreadyExists, FailedPrecondition
from retrieval_svc.record import hints, tables
from retrieval_svc.record.database import Database, insert_rows
from retrieval_svc.record.rows import chunk_rows, collection_columns
from retrieval_svc.values import CollectionSpec, DocumentRecord, Rows

BUILDING: Final = "!building-"
"""What the ids of collections begin with that are being built."""
DELETED: Final = "!deleted-"
"""The same of those that are being deleted. No collection can be created under such an id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A collection on its way. `ends` has for each shard the sequence number of its last chunk, 0 where there is none.

    `part_count` parts are in the record; `plan` and `progress` are the builder's own, as JSON has them.
    """

    uid: int
    target: str
    plan: Mapping[str, Any]
    part_count: int
    progress: Mapping[str, Any]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPart:
    """What a part of a build adds: the rows of each shard, numbered on from its end; documents; and how far it comes."""

    rows: Mapping[int, Rows]
    documents: Sequence[DocumentRecord]
    progress: Mapping[str, Any]


class CollectionBuilds:
    """The builds of a record. Raises BackendUnavailable when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, spec: CollectionSpec, plan: Mapping[str, Any], progress: Mapping[str, Any]) -> Build:
        """Begins a build of the collection that `spec` names. Raises AlreadyExists where one of that name is under way."""
        ends = (0,) * spec.shard_count
        columns = collection_columns(spec) | {"id": f"{BUILDING}{spec.id}"}
        try:
            async with self._database.writing() as connection:
                new = insert(tables.collections).values(**columns).returning(tables.collections.c.uid)
                uid = int((await connection.execute(new)).scalar_one())
                build = Build(uid=uid, target=spec.id, plan=plan, part_count=0, progress=progress, ends=ends)
                await connection.execute(insert(tables.builds).values(**_columns(build)))
        except IntegrityError as error:
            message = f"the collection {spec.id!r} is being built already"
            raise AlreadyExists(message, metadata={"collection": spec.id}) from error
        return build

    async def find(self, target: str) -> Build | None:
        """The build of a collection, None where there is none under way."""
        async with self._database.reading() as connection:
            found = await connection.execute(select(tables.builds).where(tables.builds.c.target == target))
            row = found.one_or_none()
        return None if row is None else _build(row)

    async def all(self) -> list[Build]:
        """Every build that is under way or was broken off, in the order of targets."""
        async with self._database.reading() as connection:
            return [_build(row) for row in await connection.execute(select(tables.builds).order_by(tables.builds.c.target))]

    async def append(self, build: Build, part: BuiltPart) -> Build:
        """Records a part, as a whole.

        Raises FailedPrecondition where another process went on with the build or gave it up, AlreadyExists where a chunk's id
        is there already.
        """
        ends = [rows.chunks[-1].sequence if (rows := part.rows.get(shard)) else end for shard, end in enumerate(build.ends)]
        after = Build(
            uid=build.uid,
            target=build.target,
            plan=build.plan,
            part_count=build.part_count + 1,
            progress=part.progress,
            ends=tuple(ends),
        )
        try:
            async with self._database.writing() as connection:
                await _advance(connection, build, after)
                for shard, rows in part.rows.items():
                    await insert_rows(connection, tables.chunks, list(chunk_rows(build.uid, shard, rows.chunks, rows.vectors)))
                documents = [(build.uid, each.id, each.content_hash, each.chunk_count) for each in part.documents]
                await insert_rows(connection, tables.documents, documents)
        except IntegrityError as error:
            message = (
                "a chunk's id comes twice: a record that is a chunk of its own is named like a piece of a document "
                "(ID#NUMBER); rename it, and build anew"
            )
            raise AlreadyExists(message, metadata={"collection": build.target}) from error
        return after

    async def publish(self, build: Build, *, replace: bool, expected: Mapping[int, int] | None = None) -> int | None:
        """Puts the collection in place, at once. One of that id makes way with `replace`; its rows remain to be cleared.

        Returns the uid of the one that made way, None where there was none.
        Raises AlreadyExists where there is one and it is not to be replaced, FailedPrecondition where the build is gone, and
        where the one that is to make way has been written to: its shards are elsewhere than `expected`.
        """
        async with self._database.writing() as connection:
            await _forget(connection, build)
            replaced = await self._make_way(connection, build.target, replace=replace, expected=expected)
            table = tables.collections
            await connection.execute(update(table).where(table.c.uid == build.uid).values(id=build.target))
            rows = [(build.uid, shard, end, end, end) for shard, end in enumerate(build.ends)]
            await insert_rows(connection, tables.shards, rows)
            await hints.notify_catalog(connection)
        return replaced

    async def discard(self, build: Build) -> None:
        """Gives a build up; its rows remain to be cleared."""
        async with self._database.writing() as connection:
            await _forget(connection, build)
            await _retire(connection, build.uid)

    async def _make_way(
        self, connection: AsyncConnection, target: str, *, replace: bool, expected: Mapping[int, int] | None
    ) -> int | None:
        table = tables.collections.c
        uid = await connection.scalar(select(table.uid).where(table.id == target))
        if uid is None:
            return None
        if not replace:
            message = f"the collection {target!r} exists already; say that it is to be replaced, or choose another id"
            raise AlreadyExists(message, metadata={"collection": target})
        shards = tables.shards
        # A write that is under way ends first.
        locked = select(shards.c.shard, shards.c.last_sequence).where(shards.c.collection_uid == uid)
        there = {
            row.shard: row.last_sequence for row in await connection.execute(locked.order_by(shards.c.shard).with_for_update())
        }
        if expected is not None and there != expected:
            message = f"the collection {target!r} was written to meanwhile; stop whoever writes to it, and try again"
            raise FailedPrecondition(message, metadata={"collection": target})
        await connection.execute(delete(shards).where(shards.c.collection_uid == uid))
        await _retire(connection, uid)
        return int(uid)


async def _advance(connection: AsyncConnection, before: Build, after: Build) -> None:
    table = tables.builds
    here = (table.c.collection_uid == before.uid) & (table.c.part_count == before.part_count)
    values = {"part_count": after.part_count, "progress": after.progress, "ends": list(after.ends)}
    changed = await connection.execute(update(table).where(here).values(**values))
    if changed.rowcount != 1:
        raise _elsewhere(before)


async def _forget(connection: AsyncConnection, build: Build) -> None:
    table = tables.builds
    here = (table.c.collection_uid == build.uid) & (table.c.part_count == build.part_count)
    if (await connection.execute(delete(table).where(here))).rowcount != 1:
        raise _elsewhere(build)


async def _retire(connection: AsyncConnection, uid: int) -> None:
    table = tables.collections
    await connection.execute(update(table).where(table.c.uid == uid).values(id=f"{DELETED}{uid}"))


def _elsewhere(build: Build) -> FailedPrecondition:
    message = f"another process has gone on with the build of {build.target!r}, or has given it up; this one ends"
    return FailedPrecondition(message, metadata={"collection": build.target})


def _columns(build: Build) -> dict[str, Any]:
    return {
        "collection_uid": build.uid,
        "target": build.target,
        "plan": build.plan,
        "part_count": build.part_count,
        "progress": build.progress,
        "ends": list(build.ends),
    }


def _build(row: Any) -> Build:
    return Build(
        uid=row.collection_uid,
        target=row.target,
        plan=row.plan,
        part_count=row.part_count,
        progress=row.progress,
        ends=tuple(row.ends),
    )
