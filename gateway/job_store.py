"""Jobs in the database of flows: SQLite for the processes of one machine, PostgreSQL for all replicas."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Boolean, Column, DateTime, LargeBinary, MetaData, String, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from gateway.langflow_api.jobs import Job, KeptJob, Status, joined_frames
from gateway.store import SqlFlowStore
from penstock.errors import Unavailable

_PURGED_AT_ONCE: Final = 1000

METADATA: Final = MetaData()
JOBS: Final = Table(
    "background_jobs",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("owner", String(256), nullable=False),
    Column("flow_id", String(63), nullable=False),
    Column("shown_flow_id", String(256), nullable=False),
    Column("session", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, index=True),
    Column("seen_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False, index=True),
    Column("to_stop", Boolean, nullable=False),
    Column("result", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("frames", LargeBinary, nullable=False),
)


class SqlJobStore:
    """The JobStore: at most `kept_max` jobs, the newest, each until `expiry_s` after its end. Made by `open_job_store`."""

    def __init__(self, store: SqlFlowStore, *, kept_max: int, expiry_s: float) -> None:
        self._store = store
        self._kept_max = kept_max
        self._expiry = timedelta(seconds=expiry_s)

    async def create(self, job: Job) -> bool:
        await self._purge()
        values = {"id": job.id, "create_time": job.created, "to_stop": False, **self._columns(job)}
        try:
            async with self._store.connected() as connection:
                await connection.execute(insert(JOBS).values(**values))
        except IntegrityError:
            return False
        return True

    async def put(self, job: Job) -> None:
        async with self._store.connected() as connection:
            await connection.execute(update(JOBS).where(JOBS.c.id == job.id).values(**self._columns(job)))

    async def get(self, job_id: str) -> KeptJob | None:
        unexpired = (JOBS.c.id == job_id) & (JOBS.c.expire_time > datetime.now(UTC))
        async with self._store.connected() as connection:
            row = (await connection.execute(select(JOBS).where(unexpired))).one_or_none()
        return None if row is None else _kept(row)

    async def beat(self, job_ids: Collection[str]) -> frozenset[str]:
        own, now = JOBS.c.id.in_(job_ids), datetime.now(UTC)
        async with self._store.connected() as connection:
            await connection.execute(update(JOBS).where(own).values(seen_time=now, expire_time=now + self._expiry))
            wanted = (await connection.execute(select(JOBS.c.id).where(own & JOBS.c.to_stop))).scalars()
            return frozenset(wanted)

    async def stop(self, job_id: str) -> None:
        async with self._store.connected() as connection:
            await connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(to_stop=True))

    async def _purge(self) -> None:
        """Forgets what has expired, and of what is too much the oldest."""
        newest_first = select(JOBS.c.id).order_by(JOBS.c.create_time.desc(), JOBS.c.id)
        async with self._store.connected() as connection:
            await connection.execute(delete(JOBS).where(JOBS.c.expire_time <= datetime.now(UTC)))
            beyond = await connection.execute(newest_first.offset(self._kept_max - 1).limit(_PURGED_AT_ONCE))
            too_many = tuple(beyond.scalars())
            if too_many:
                await connection.execute(delete(JOBS).where(JOBS.c.id.in_(too_many)))

    def _columns(self, job: Job) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "owner": job.owner,
            "flow_id": job.flow_id,
            "shown_flow_id": job.shown_flow_id,
            "session": job.session,
            "status": job.status.value,
            "seen_time": now,
            "expire_time": now + self._expiry,
            "result": job.result,
            "error": job.error,
            "frames": joined_frames(job.frames),
        }


async def open_job_store(store: SqlFlowStore, *, kept_max: int, expiry_s: float) -> SqlJobStore:
    """The jobs in the database of a store of flows. Makes their table where it is missing. Raises Unavailable."""
    try:
        await _create_table(store)
    except Unavailable:  # Another process that starts may have been faster.
        await _create_table(store)
    return SqlJobStore(store, kept_max=kept_max, expiry_s=expiry_s)


async def _create_table(store: SqlFlowStore) -> None:
    async with store.connected() as connection:
        await connection.run_sync(METADATA.create_all)


def _kept(row: Row[*tuple[Any, ...]]) -> KeptJob:
    job = Job(
        id=row.id,
        owner=row.owner,
        flow_id=row.flow_id,
        shown_flow_id=row.shown_flow_id,
        session=row.session,
        created=_utc(row.create_time),
        status=Status(row.status),
        frames=row.frames.split(b"\n") if row.frames else [],
        result=row.result,
        error=row.error,
    )
    return KeptJob(job=job, seen=_utc(row.seen_time))


def _utc(time: datetime) -> datetime:
    """SQLite forgets the zone; everything is written in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
