"""A build from its beginning to its end, or from where one was broken off.

    rows      corpus -> parts -> executor: split, embed -> the record, a part a transaction, unseen
    shards    the record -> executor: each shard's segment, words and checkpoint; its snapshot
    publish   one transaction of the record puts the collection in place, and away what it replaces

After a crash the record says which parts are in (record/building.py), each shard's folder whether it is finished, and
publishing is done or not. So the same build, started again, goes on with what is missing, and comes to the same rows under the
same numbers, however often that happened and whatever executor did it.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from penstock.corpora import Corpus, CorpusFile, ReadingOptions
from penstock.corpora.files import find_files
from penstock.errors import AlreadyExists, FailedPrecondition
from retrieval_svc import checks
from retrieval_svc.bulk.errors_file import ErrorsFile
from retrieval_svc.bulk.executing import Executor
from retrieval_svc.bulk.indexing import IndexStep, ShardTask
from retrieval_svc.bulk.job import BuildJob, Phase, Progress, ShardSummary, Summary
from retrieval_svc.bulk.numbering import numbered
from retrieval_svc.bulk.parts import PART_RECORDS_EMBEDDED, PART_RECORDS_READY, Reached, parts
from retrieval_svc.bulk.preparing import DescribeStep, ModelSource, PreparedPart, PrepareStep, PreparingLimits
from retrieval_svc.data_directory import locked_directory
from retrieval_svc.ingest.preparing import Cutting, cutting
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.record.building import Build, BuiltPart
from retrieval_svc.record.store import SqlStore
from retrieval_svc.shards.lexical import check_language
from retrieval_svc.snapshots.store import SnapshotStore
from retrieval_svc.values import CollectionSpec, EmbeddingModel

Result = TypeVar("Result")

_BEGUN: Final = {"file": 0, "number": 0, "complete": False, "document_count": 0, "chunk_count": 0, "error_count": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where a build works. `folder` is the service's data folder; its shards' files stay there with `keep_files`."""

    folder: Path
    database_url: str
    snapshot_url: str
    keep_files: bool
    cores: int
    workers: int
    lexical_memory_bytes: int
    shard_count: int
    splitting: Splitting
    limits: PreparingLimits

    def work(self, collection: str) -> Path:
        """What a build leaves for people to read, and its lock."""
        return self.folder / "builds" / collection

    def errors_file(self, collection: str) -> Path:
        """Where the records are told that could not be taken in."""
        return self.work(collection) / "errors.txt"

    @property
    def shards(self) -> Path:
        """Where nodes look for shards."""
        return self.folder / "shards"


@dataclass(slots=True, kw_only=True)
class BulkBuild:
    """One run of a build."""

    job: BuildJob
    store: SqlStore
    executor: Executor
    source: ModelSource | None
    surroundings: Surroundings
    report: Callable[[Progress], None]
    _model: EmbeddingModel | None = None
    _resumed: bool = False
    _seconds: dict[str, float] = field(default_factory=dict)

    async def run(self) -> Summary:
        """Builds. Raises InvalidArgument, AlreadyExists, FailedPrecondition and what is below them."""
        await self._refuse_existing()
        files = await asyncio.to_thread(find_files, self.job.paths)
        spec, how = await self._described()
        build = await self._begun(spec, how, files)
        errors = ErrorsFile(
            path=self.surroundings.errors_file(spec.id),
            limit=self.job.errors_max,
            count=build.progress["error_count"],
        )
        with self._timed(Phase.ROWS):
            build = await self._rows(build, spec, how, files, errors)
        with self._timed(Phase.SHARDS):
            shards = await self._shards(build, spec)
        with self._timed(Phase.PUBLISHED):
            await self._publish(build)
        return self._summary(build, shards, errors)

    async def _refuse_existing(self) -> None:
        checks.collection_id(self.job.collection)
        there = {collection.spec.id for collection in await self.store.collections()}
        if self.job.collection in there and not self.job.replace:
            message = f"the collection {self.job.collection!r} exists already; give --replace, or choose another id"
            raise AlreadyExists(message, metadata={"collection": self.job.collection})

    async def _described(self) -> tuple[CollectionSpec, Cutting | None]:
        """The collection, and how its documents are split; None: they are not."""
        job = self.job
        checks.index(job.index)
        if job.lexical.enabled:
            check_language(job.lexical.language)
        if self.source is not None:
            described = self._done(self.executor.map(DescribeStep(source=self.source), [None]))
            [self._model] = [model async for model in described]
        model = self._model
        dimension = model.dimension if model else checks.dimension(job.dimension)
        checks.index_fits(job.index, dimension)
        spec = CollectionSpec(
            id=job.collection,
            embedding_model=model.name if model else "",
            embedding_fingerprint=model.fingerprint if model else "",
            dimension=dimension,
            metric=job.metric,
            index=job.index,
            lexical=job.lexical,
            shard_count=checks.shard_count(job.shard_count or self.surroundings.shard_count),
        )
        return spec, None if model is None or job.whole else self._cutting(model)

    def _cutting(self, model: EmbeddingModel) -> Cutting:
        return cutting(
            self.job.splitting,
            window_tokens=model.window_tokens,
            fingerprint=model.fingerprint,
            defaults=self.surroundings.splitting,
        )

    async def _begun(self, spec: CollectionSpec, how: Cutting | None, files: Sequence[CorpusFile]) -> Build:
        """The build that was broken off, where it is the same; else a new one."""
        plan = _plan(self.job, spec, how, files)
        build = await self.store.builds.find(spec.id)
        if build is not None and self.job.fresh:
            await self._discard(build)
            build = None
        if build is None:
            await asyncio.to_thread(self.surroundings.errors_file(spec.id).unlink, missing_ok=True)
            return await self.store.builds.begin(spec, plan, _BEGUN)
        if build.plan != plan:
            message = (
                f"a build of {spec.id!r} was broken off that was of other files (or they have changed), or of other options; "
                "give --fresh to begin anew, or the same as then to go on"
            )
            raise FailedPrecondition(message, metadata={"collection": spec.id})
        self._resumed = True
        return build

    async def _discard(self, build: Build) -> None:
        await self.store.builds.discard(build)
        await self.store.finish_deletions()
        await self._remove_files(build.uid)

    async def _remove_files(self, uid: int) -> None:
        await asyncio.to_thread(shutil.rmtree, self.surroundings.shards / str(uid), ignore_errors=True)

    async def _rows(
        self, build: Build, spec: CollectionSpec, how: Cutting | None, files: Sequence[CorpusFile], errors: ErrorsFile
    ) -> Build:
        """Records what is missing of the corpus. A part is in the record with how far it comes, or not at all."""
        if build.progress["complete"]:
            return build
        passed = Reached.of(build.progress).passed(files)
        step = PrepareStep(spec=spec, source=self.source, how=how, limits=self.surroundings.limits)
        with Corpus(files, options=ReadingOptions(join_title=self.job.join_title), passed=passed) as corpus:
            records_max = PART_RECORDS_EMBEDDED if self.source else PART_RECORDS_READY
            prepared = self.executor.map(step, parts(corpus, records_max=records_max))
            async with aclosing(self._done(prepared)) as ready:
                async for each in ready:
                    errors.add([(bad.place, bad.message) for bad in each.part.bad])
                    errors.add([(refused.place, refused.message) for refused in each.refused])
                    build = await self.store.builds.append(build, _built(build, each, errors.count))
                    self._tell(build, Phase.ROWS, each.part.bytes_read, corpus.bytes_total)
        complete = BuiltPart(rows={}, documents=(), progress={**build.progress, "complete": True})
        return await self.store.builds.append(build, complete)

    async def _shards(self, build: Build, spec: CollectionSpec) -> list[ShardSummary]:
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
        self._tell(build, Phase.SHARDS, 0, sum(build.ends))
        async with aclosing(self._done(self.executor.map(step, tasks))) as indexed:
            async for each in indexed:
                done.append(each)
                self._tell(build, Phase.SHARDS, sum(shard.row_count for shard in done), sum(build.ends))
        return done

    async def _publish(self, build: Build) -> None:
        replaced = await self.store.builds.publish(build, replace=self.job.replace)
        self._tell(build, Phase.PUBLISHED, 0, 1)
        if not self.surroundings.keep_files:
            await self._remove_files(build.uid)
        if replaced is not None:
            await self._remove_replaced(replaced)
        await self.store.finish_deletions()
        self._tell(build, Phase.PUBLISHED, 1, 1)

    async def _remove_replaced(self, uid: int) -> None:
        """Removes its snapshots and files; a service that runs on the folder does the latter itself, after its searches."""
        around = self.surroundings
        if around.snapshot_url:
            await SnapshotStore(around.snapshot_url).delete_collection(uid)
        lock = locked_directory(around.folder) if (around.folder / "lock").exists() else nullcontext()
        with suppress(FailedPrecondition), lock:
            await self._remove_files(uid)

    async def _done(self, results: Generator[Result, None, None]) -> AsyncGenerator[Result, None]:
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

    def _tell(self, build: Build, phase: Phase, done: int, total: int) -> None:
        counts = {name: build.progress[name] for name in ("document_count", "chunk_count", "error_count")}
        self.report(Progress(phase=phase, done=done, total=total, resumed=self._resumed, **counts))

    @contextmanager
    def _timed(self, phase: Phase) -> Generator[None, None, None]:
        began = time.monotonic()
        yield
        self._seconds[phase.value] = time.monotonic() - began

    def _summary(self, build: Build, shards: Sequence[ShardSummary], errors: ErrorsFile) -> Summary:
        return Summary(
            collection=build.target,
            uid=build.uid,
            document_count=build.progress["document_count"],
            chunk_count=build.progress["chunk_count"],
            error_count=errors.count,
            first_errors=tuple(errors.first),
            errors_file=errors.path if errors.count else None,
            shards=tuple(shards),
            seconds=self._seconds,
        )


def _plan(job: BuildJob, spec: CollectionSpec, how: Cutting | None, files: Sequence[CorpusFile]) -> dict[str, Any]:
    """What decides what a build comes to, as JSON has it."""
    plan = {
        "files": [[file.name, file.version] for file in files],
        "spec": asdict(spec),
        "cutting": None if how is None else asdict(how),
        "join_title": job.join_title,
    }
    plain: dict[str, Any] = orjson.loads(orjson.dumps(plan))
    return plain


def _built(build: Build, prepared: PreparedPart, error_count: int) -> BuiltPart:
    reached, before = prepared.part.reached, build.progress
    progress = {
        "file": reached.file,
        "number": reached.number,
        "complete": False,
        "document_count": before["document_count"] + prepared.document_count,
        "chunk_count": before["chunk_count"] + len(prepared.chunks),
        "error_count": error_count,
    }
    rows = numbered(prepared.chunks, prepared.vectors, build.ends)
    return BuiltPart(rows=rows, documents=prepared.documents, progress=progress)
