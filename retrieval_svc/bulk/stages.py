"""What all builds have in common once their rows are recorded: shards are indexed, and put in place at once.

The results of an executor, how far it has come, and the time it took are here too.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from penstock.errors import FailedPrecondition
from retrieval_svc.bulk.errors_file import ErrorsFile
from retrieval_svc.bulk.executing import Executor
from retrieval_svc.bulk.indexing import IndexStep, ShardTask
from retrieval_svc.bulk.job import Phase, Progress, ShardSummary, Summary
from retrieval_svc.bulk.surroundings import Surroundings
from retrieval_svc.data_directory import locked_directory
from retrieval_svc.record.building import Build
from retrieval_svc.record.store import SqlStore
from retrieval_svc.snapshots.store import SnapshotStore
from retrieval_svc.values import CollectionSpec

Result = TypeVar("Result")


@dataclass(slots=True, kw_only=True)
class Stages:
    """The stages of one run of a build. `seconds` are those that each took."""

    store: SqlStore
    executor: Executor
    surroundings: Surroundings
    report: Callable[[Progress], None]
    resumed: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    async def shards(self, build: Build, spec: CollectionSpec) -> list[ShardSummary]:
        around = self.surroundings
        step = IndexStep(
            spec=spec,
            uid=build.uid,
            database_url=around.database_url,
            folder=around.shards,
            snapshot_url=around.snapshot_url,
            threads=max(1, around.cores // min(around.workers, spec.shard_count)),
            lexical_memory_bytes=around.lexical_memory_bytes,
        )
        tasks = [ShardTask(shard=shard, end=end) for shard, end in enumerate(build.ends)]
        done: list[ShardSummary] = []
        self.tell(build, Phase.SHARDS, 0, sum(build.ends))
        async with aclosing(self.results(self.executor.map(step, tasks))) as indexed:
            async for each in indexed:
                done.append(each)
                self.tell(build, Phase.SHARDS, sum(shard.row_count for shard in done), sum(build.ends))
        return done

    async def publish(self, build: Build, *, replace: bool, expected: Mapping[int, int] | None = None) -> None:
        replaced = await self.store.builds.publish(build, replace=replace, expected=expected)
        self.tell(build, Phase.PUBLISHED, 0, 1)
        if not self.surroundings.keep_files:
            await self.remove_files(build.uid)
        if replaced is not None:
            await self._remove_replaced(replaced)
        await self.store.finish_deletions()
        self.tell(build, Phase.PUBLISHED, 1, 1)

    async def _remove_replaced(self, uid: int) -> None:
        """Removes its snapshots and files; a service that runs on the folder does the latter itself, after its searches."""
        around = self.surroundings
        if around.snapshot_url:
            await SnapshotStore(around.snapshot_url).delete_collection(uid)
        lock = locked_directory(around.folder) if (around.folder / "lock").exists() else nullcontext()
        with suppress(FailedPrecondition), lock:
            await self.remove_files(uid)

    async def remove_files(self, uid: int) -> None:
        await asyncio.to_thread(shutil.rmtree, self.surroundings.shards / str(uid), ignore_errors=True)

    async def results(self, results: Generator[Result, None, None]) -> AsyncGenerator[Result, None]:
        """The results, each made ready in a thread while the one before it is worked with."""
        nothing: Any = object()

        def upcoming() -> "asyncio.Future[Any]":
            return asyncio.ensure_future(asyncio.to_thread(next, results, nothing))

        waiting = upcoming()
        try:
            while (result := await asyncio.shield(waiting)) is not nothing:
                waiting = upcoming()
                yield result
        finally:
            if not waiting.done():
                self.executor.stop()  # A generator that runs cannot be closed.
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()
            await asyncio.to_thread(results.close)

    def tell(self, build: Build, phase: Phase, done: int, total: int) -> None:
        counts = {name: build.progress[name] for name in ("document_count", "chunk_count", "error_count")}
        self.report(Progress(phase=phase, done=done, total=total, resumed=self.resumed, **counts))

    @contextmanager
    def timed(self, phase: Phase) -> Generator[None, None, None]:
        began = time.monotonic()
        yield
        self.seconds[phase.value] = time.monotonic() - began

    def summary(self, build: Build, shards: Sequence[ShardSummary], errors: ErrorsFile | None = None) -> Summary:
        return Summary(
            collection=build.target,
            uid=build.uid,
            document_count=build.progress["document_count"],
            chunk_count=build.progress["chunk_count"],
            error_count=errors.count if errors else 0,
            first_errors=tuple(errors.first) if errors else (),
            errors_file=errors.path if errors and errors.count else None,
            shards=tuple(shards),
            seconds=self.seconds,
        )
