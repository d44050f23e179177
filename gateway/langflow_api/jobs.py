"""Runs that nobody waits for: webhooks, and workflows in the background.

A job runs in the process that took it: so many run at once, so many wait, and when the gateway leaves the rest are cancelled.
Where it stands and what it came to is kept in a JobStore, which all processes of a gateway share: any of them can be asked for
it, and can stop it. The store keeps so many that have ended, for so long.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from uuid import NAMESPACE_OID, uuid5

from gateway.langflow_api.new_id import new_id
from penstock.errors import Overloaded, PenstockError

log = logging.getLogger("penstock.gateway")

FRAMES_MAX: Final = 4096
"""Of a longer run's events the first so many are kept."""
BEAT_S: Final = 1.0
"""How often a process says that its jobs live, and looks which of them are to stop."""
GONE_S: Final = 30.0
"""A job of which nothing was heard for so long has died with its process."""
POLL_S: Final = 0.5
GONE: Final = "the gateway that ran it has gone"


class Status(StrEnum):
    """LangFlow's words for where a job is."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens."""
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


@dataclass(slots=True, kw_only=True)
class Job:
    """One run in the background. `owner` is the tenant whose it is; `frames` are its events, numbered from 1."""

    owner: str
    flow_id: str
    shown_flow_id: str
    session: str
    id: str = field(default_factory=new_id)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: Status = Status.QUEUED
    frames: list[bytes] = field(default_factory=list)
    result: bytes = b""
    error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, frame: bytes) -> None:
        """Keeps an event and wakes who waits for it."""
        if len(self.frames) < FRAMES_MAX:
            self.frames.append(frame)
            self.wake()

    def wake(self) -> None:
        """Tells those who watch that something has changed."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJob:
    """A job as it is kept. `seen` is when its process last said that it lives."""

    job: Job
    seen: datetime


class JobStore(Protocol):
    """Keeps jobs for all processes of a gateway. Raises Unavailable."""

    async def create(self, job: Job) -> bool:
        """Keeps a new job; whether there was none of its id."""
        ...

    async def put(self, job: Job) -> None:
        """Keeps what has become of a job."""
        ...

    async def get(self, job_id: str) -> KeptJob | None:
        """The job of this id, as long as it is kept."""
        ...

    async def beat(self, job_ids: Collection[str]) -> frozenset[str]:
        """Says that these jobs live; those of them that somebody wants to stop."""
        ...

    async def stop(self, job_id: str) -> None:
        """Asks whoever runs a job to stop it."""
        ...


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """The jobs of this process, and through the store those of the others. Made by `working`."""

    def __init__(self, store: JobStore, *, running_max: int = 16, waiting_max: int = 256, stop_wait_s: float = 10.0) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(running_max)
        self._most = running_max + waiting_max
        self._stop_wait_s = stop_wait_s
        self._starting = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kept: dict[str, Job] = {}
        """Those of `_tasks` that somebody may ask for."""

    async def start(self, job: Job, work: Work) -> Job:
        """Runs `work` when it is its turn, and keeps what it comes to; the job of the same id where there is one already.

        Raises Overloaded, Unavailable.
        """
        self._check_room()
        self._starting += 1
        try:
            is_new = await self._store.create(job)
        finally:
            self._starting -= 1
        if not is_new:
            return await self.get(job.id, job.owner) or job  # Or it was forgotten in between.
        self._kept[job.id] = job
        self._begin(job, self._recorded(job, work))
        return job

    def start_unkept(self, job: Job, work: Work) -> None:
        """Runs `work` when it is its turn. Nobody will ask for it. Raises Overloaded."""
        self._check_room()
        self._begin(job, self._run(job, work))

    async def get(self, job_id: str, owner: str | None) -> Job | None:
        """A job of this owner, or of anybody's, as long as it is kept. Raises Unavailable."""
        job = self._kept.get(job_id)
        if job is None:
            kept = await self._store.get(job_id)
            job = None if kept is None else _still(kept)
        return job if job is not None and owner in (None, job.owner) else None

    async def later(self, job: Job, wait_s: float) -> Job:
        """The job when something has changed of it, or after `wait_s`. Raises Unavailable."""
        if job.id in self._kept:
            changed = job.changed
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), wait_s)
            return job
        if job.status.is_final:
            return job
        await asyncio.sleep(min(POLL_S, wait_s))
        return await self.get(job.id, job.owner) or job

    async def stop(self, job: Job) -> Job:
        """Cancels a job, here or where it runs, and waits a while for its end; the job then. Raises Unavailable."""
        task = self._tasks.get(job.id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            return job
        await self._store.stop(job.id)
        for _ in range(round(self._stop_wait_s / POLL_S)):
            job = await self.later(job, POLL_S)
            if job.status.is_final:
                break
        return job

    async def close(self) -> None:
        """Cancels all that has not ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            log.warning("%d runs in the background are cancelled", len(tasks))
            await asyncio.gather(*tasks, return_exceptions=True)

    async def beat(self) -> None:
        """Says for ever that the jobs of this process live, and stops those that others want stopped."""
        while True:
            await asyncio.sleep(BEAT_S)
            if not self._kept:
                continue
            try:
                wanted = await self._store.beat(tuple(self._kept))
            except PenstockError as error:
                log.warning("runs in the background could not say that they live: %s", error.message)
                continue
            for job_id in wanted:
                if job_id in self._tasks:
                    self._tasks[job_id].cancel()

    def _check_room(self) -> None:
        if len(self._tasks) + self._starting >= self._most:
            raise Overloaded(
                f"{self._most} runs are in the background, which is this gateway's limit; try again later",
                retry_after_s=1.0,
            )

    def _begin(self, job: Job, running: Awaitable[None]) -> None:
        task = asyncio.ensure_future(running)
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._end(job))

    async def _recorded(self, job: Job, work: Work) -> None:
        try:
            await self._run(job, work)
        finally:
            if not job.status.is_final:
                job.status = Status.CANCELLED
            try:
                await self._store.put(job)
            except PenstockError as error:
                log.warning("what became of the job %s is not kept: %s", job.id, error.message)

    async def _run(self, job: Job, work: Work) -> None:
        try:
            async with self._turns:
                job.status = Status.IN_PROGRESS
                job.wake()
                await work(job)
        except asyncio.CancelledError:
            job.status = Status.CANCELLED
            raise
        except PenstockError as error:
            job.status, job.error = Status.FAILED, error.message
            log.warning("the job %s of flow %r failed: %s: %s", job.id, job.flow_id, error.reason, error.message)
        except Exception:
            job.status, job.error = Status.FAILED, "internal error"
            log.exception("the job %s of flow %r failed", job.id, job.flow_id)
        else:
            if not job.status.is_final:
                job.status = Status.COMPLETED

    def _end(self, job: Job) -> None:
        self._tasks.pop(job.id, None)
        self._kept.pop(job.id, None)
        if not job.status.is_final:  # Cancelled before its first step.
            job.status = Status.CANCELLED
        job.wake()


@asynccontextmanager
async def working(jobs: Jobs) -> AsyncIterator[Jobs]:
    """Tends jobs while the block runs; what has not ended then is cancelled."""
    tending = asyncio.create_task(jobs.beat())
    try:
        yield jobs
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await jobs.close()


def id_for(owner: str, key: str) -> str:
    """The id of the job that a caller starts with an idempotency key: with the same key it is the same job."""
    return str(uuid5(NAMESPACE_OID, f"{owner}\0{key}"))


def joined_frames(frames: Sequence[bytes]) -> bytes:
    """Events in one piece: none of them has a line break."""
    return b"\n".join(frames)


def _still(kept: KeptJob) -> Job:
    """A job of another process: one of which nothing is heard any more has failed."""
    if not kept.job.status.is_final and datetime.now(UTC) - kept.seen > timedelta(seconds=GONE_S):
        kept.job.status, kept.job.error = Status.FAILED, GONE
    return kept.job
