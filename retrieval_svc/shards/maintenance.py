"""What the shards of a process need beside searches and changes: heads sealed, checkpoints, segments merged, the log trimmed.

    head full, or changed for an interval -> seal: freeze (index thread), write (any thread) -> publish: checkpoint -> adopt
    many small segments, many gone rows   -> compact: plan, merge in a child process           -> publish -> adopt

Of the worker processes that share a folder one leads and does this; the others adopt what it publishes. What fails is logged
and tried again, later each time: searches and writes do not depend on it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from penstock.errors import PenstockError, Unavailable
from retrieval_svc.shards import checkpoint, compaction, errands
from retrieval_svc.shards.checkpoint import Manifest
from retrieval_svc.shards.compaction_process import merge_in_child
from retrieval_svc.shards.errands import Errands
from retrieval_svc.shards.follower import ShardKey
from retrieval_svc.shards.head import FrozenHead
from retrieval_svc.shards.replica import Replica, Threads
from retrieval_svc.shards.sealing import publish_segments, seal
from retrieval_svc.shards.segment import SegmentEntry

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_RETRY_S: Final = (2.0, 120.0)
"""First and longest pause after a shard's maintenance failed."""


class Trimmer(Protocol):
    """The record, as it is trimmed."""

    async def trim(self, uid: int, shard: int, through: int) -> None:
        """Forgets the log's entries up to and with `through`. What is stored stays."""
        ...


class Backup(Protocol):
    """Where checkpoints are copied to."""

    def is_due(self, replica: Replica) -> bool:
        """Whether the last copy is too old."""
        ...

    async def stage(self, replica: Replica, folder: Path, manifest: Manifest, *, always: bool = False) -> Path | None:
        """Puts a checkpoint and the words aside, `always` or if nobody else has sent one lately (None). Raises Unavailable."""
        ...

    async def send(self, key: ShardKey, staged: Path, manifest: Manifest) -> None:
        """Copies what was put aside. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceLimits:
    """When what is due."""

    head_rows_max: int
    checkpoint_interval_s: float
    log_entries_kept: int


@dataclass(slots=True, kw_only=True)
class Care:
    """What is known of one replica's files."""

    replica: Replica
    files: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a checkpoint is made. Heads go on being sealed while segments are merged, and while a snapshot is sent."""
    slow: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while segments are merged or a snapshot is sent."""
    unwritten: list[FrozenHead] = field(default_factory=list)
    adopted: str = ""
    """The checkpoint of another process that was adopted last."""
    since_s: float = field(default_factory=time.monotonic)
    """When the last checkpoint was made."""
    not_before_s: float = 0.0
    pause_s: float = _RETRY_S[0]

    @property
    def has_changed(self) -> bool:
        """Whether there is something that no checkpoint has: what came since the last one, or before its care began."""
        return self.replica.position > self.replica.index.checkpointed


class Maintenance:
    """Looks after every open replica. `folder_of` gives a shard's folder."""

    def __init__(
        self,
        replicas: Callable[[], Sequence[Replica]],
        *,
        folder_of: Callable[[ShardKey], Path],
        threads: Threads,
        limits: MaintenanceLimits,
        leads: bool,
        shared: Errands,
        trimmer: Trimmer,
        backup: Backup | None,
    ) -> None:
        self._replicas = replicas
        self._folder_of = folder_of
        self._threads = threads
        self._limits = limits
        self._leads = leads
        self._trimmer = trimmer
        self._backup = backup
        self._cares: dict[ShardKey, Care] = {}
        self._compacting = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands = shared
        self._running: set[Path] = set()
        self.compactions = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks after the replicas while the block runs; afterwards, what leads makes a last checkpoint of what has changed."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(looking, *self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Makes a checkpoint of every replica that has changed, so that the next start need not replay the log."""
        if self._leads:
            changed = [care for care in self._current() if care.has_changed]
            await asyncio.gather(*map(self._last_checkpoint, changed))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for errand in self._errands.waiting() if self._leads else ():
                if errand not in self._running:
                    self._running.add(errand)
                    self._begin(self._errands.run(errand, self._run_errand))
            for care in self._current():
                if not care.files.locked() and time.monotonic() >= care.not_before_s:
                    self._begin(self._attempt(care, self._lead(care) if self._leads else self._adopt(care)))

    async def _last_checkpoint(self, care: Care) -> None:
        try:
            await self._seal(care)
        except PenstockError as error:
            _log.warning("%s: no last checkpoint: %s", care.replica.key, error.message)

    async def checkpoint(self, replica: Replica) -> None:
        """Seals and publishes now."""
        await self._do(replica, errands.CHECKPOINT)

    async def compact(self, replica: Replica) -> None:
        """Merges all segments into one now, the head included. Raises Unavailable when the merging fails."""
        await self._do(replica, errands.COMPACT)

    async def snapshot(self, replica: Replica) -> None:
        """Sends a snapshot of the present state to the store. Raises Unavailable."""
        await self._do(replica, errands.SNAPSHOT)

    async def _do(self, replica: Replica, kind: str) -> None:
        if not self._leads:
            await self._errands.ask(replica.key, kind)
            await self._adopt(self._care(replica))
            return
        care = self._care(replica)
        async with care.slow:
            if kind == errands.SNAPSHOT:
                await self._copy(care, always=True)
            else:
                await self._seal(care)
            if kind == errands.COMPACT:
                await self._merge(care, force=True)

    async def _run_errand(self, key: ShardKey, kind: str) -> None:
        replica = next((each for each in self._replicas() if each.key == key), None)
        if replica is None:
            raise Unavailable("the process that writes the shards' files does not hold this one; try again in a moment")
        await self._do(replica, kind)

    def _current(self) -> list[Care]:
        """The cares of the replicas that are open now."""
        cares = [self._care(replica) for replica in self._replicas()]
        self._cares = {care.replica.key: care for care in cares}
        return cares

    def _care(self, replica: Replica) -> Care:
        care = self._cares.get(replica.key)
        if care is None or care.replica is not replica:
            care = self._cares[replica.key] = Care(replica=replica)
        return care

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, care: Care, work: Awaitable[None]) -> None:
        try:
            await work
            care.pause_s = _RETRY_S[0]
        except Exception as error:  # noqa: BLE001  # Whatever it is, searches and writes go on, and it is tried again.
            if care.replica in self._replicas():  # Else its files went with its collection.
                reason = error.message if isinstance(error, PenstockError) else repr(error)
                _log.error("%s: maintenance failed, again in %.0f s: %s", care.replica.key, care.pause_s, reason)
            care.not_before_s = time.monotonic() + care.pause_s
            care.pause_s = min(2 * care.pause_s, _RETRY_S[1])

    async def _lead(self, care: Care) -> None:
        if self._is_due(care):
            await self._seal(care)
            if not care.slow.locked():
                self._begin(self._attempt(care, self._merge_now(care)))
        if self._backup is not None and not care.slow.locked() and self._backup.is_due(care.replica):
            self._begin(self._attempt(care, self._copy_now(care)))

    async def _merge_now(self, care: Care) -> None:
        async with care.slow:
            await self._merge(care, force=False)

    async def _copy_now(self, care: Care) -> None:
        async with care.slow:
            await self._copy(care)

    async def _copy(self, care: Care, *, always: bool = False) -> None:
        assert self._backup is not None  # noqa: S101  # Nobody asks for snapshots where there is no store.
        folder = self._folder(care)
        if care.has_changed or (always and await asyncio.to_thread(checkpoint.newest, folder) is None):
            await self._seal(care)
        async with care.files:
            manifest = await asyncio.to_thread(checkpoint.newest, folder)
            if manifest is None:
                return
            staged = await self._backup.stage(care.replica, folder, manifest, always=always)
        if staged is not None:
            await self._backup.send(care.replica.key, staged, manifest)

    def _folder(self, care: Care) -> Path:
        """Where a replica's files are written. Raises Unavailable when it is open no longer: they went with its collection."""
        if care.replica not in self._replicas():
            raise Unavailable(f"shard {care.replica.key.shard} is no longer open here")
        return self._folder_of(care.replica.key)

    def _is_due(self, care: Care) -> bool:
        if care.replica.index.head_row_count >= self._limits.head_rows_max or care.unwritten:
            return True
        return care.has_changed and time.monotonic() - care.since_s >= self._limits.checkpoint_interval_s

    async def _seal(self, care: Care) -> None:
        async with care.files:
            added = await seal(care.replica.index, self._folder(care), self._threads.index, care.unwritten)
            await self._publish(care, added=added)
            care.unwritten.clear()

    async def _merge(self, care: Care, *, force: bool) -> None:
        index = care.replica.index
        async with self._compacting:
            plan = await self._threads.index.run(partial(index.plan_compaction, force=force))
            if plan is None:
                return
            path = await asyncio.to_thread(compaction.write_plan, plan, self._folder(care))
            await merge_in_child(path)
            entry = await asyncio.to_thread(compaction.read_result, plan)
        async with care.files:
            await self._publish(care, added=[entry], replaced=plan.inputs)
        self.compactions += 1

    async def _publish(self, care: Care, *, added: Sequence[SegmentEntry], replaced: Sequence[str] = ()) -> None:
        folder = self._folder(care)
        if care.replica.words is not None:
            await self._threads.words.run(care.replica.words.commit)
        manifest = await publish_segments(care.replica.index, folder, self._threads.index, added=added, replaced=replaced)
        care.since_s = time.monotonic()
        await self._trimmer.trim(
            care.replica.key.uid, care.replica.key.shard, manifest.position - self._limits.log_entries_kept
        )

    async def _adopt(self, care: Care) -> None:
        """Takes over what the process that leads has published since."""
        async with care.files:
            await self._adopt_newest(care)

    async def _adopt_newest(self, care: Care) -> None:
        folder = self._folder_of(care.replica.key)
        if await asyncio.to_thread(checkpoint.current_name, folder) == care.adopted:
            return
        manifest = await asyncio.to_thread(checkpoint.newest, folder)
        # One that is ahead waits until the changes before it have come by the log, which the words need too.
        if manifest is None or manifest.position > care.replica.position:
            return
        segments = await asyncio.to_thread(checkpoint.open_segments, folder, manifest)
        await self._threads.index.run(partial(care.replica.index.adopt, manifest, segments))
        care.adopted = manifest.name
