"""A build from its beginning to its end, or from where one was broken off.

    rows      corpus -> parts -> executor: split, embed -> the record, a part a transaction, unseen
    shards    the record -> executor: each shard's segment, words and checkpoint; its snapshot
    publish   one transaction of the record puts the collection in place, and away what it replaces

After a crash the record says which parts are in (record/building.py), each shard's folder whether it is finished, and
publishing is done or not. So the same build, started again, goes on with what is missing, and comes to the same rows under the
same numbers, however often that happened and whatever executor did it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any, Final, TypeVar

import orjson

from penstock.corpora import Corpus, CorpusFile, ReadingOptions
from penstock.corpora.files import find_files
from penstock.errors import AlreadyExists, FailedPrecondition
from retrieval_svc import checks
from retrieval_svc.bulk.errors_file import ErrorsFile
from retrieval_svc.bulk.executing import Executor
from retrieval_svc.bulk.job import BuildJob, Phase, Progress, Summary
from retrieval_svc.bulk.numbering import numbered
from retrieval_svc.bulk.parts import PART_RECORDS_EMBEDDED, PART_RECORDS_READY, Reached, parts
from retrieval_svc.bulk.preparing import DescribeStep, ModelSource, PreparedPart, PrepareStep
from retrieval_svc.bulk.stages import Stages
from retrieval_svc.bulk.surroundings import Surroundings
from retrieval_svc.ingest.preparing import Cutting, cutting
from retrieval_svc.record.building import Build, BuiltPart
from retrieval_svc.record.store import SqlStore
from retrieval_svc.shards.lexical import check_language
from retrieval_svc.values import CollectionSpec, EmbeddingModel

Result = TypeVar("Result")

_BEGUN: Final = {"file": 0, "number": 0, "complete": False, "document_count": 0, "chunk_count": 0, "error_count": 0}


@dataclass(slots=True, kw_only=True)
class BulkBuild:
    """One run of a build."""

    job: BuildJob
    store: SqlStore
    executor: Executor
    source: ModelSource | None
    surroundings: Surroundings
    report: InitVar[Callable[[Progress], None]]
    _model: EmbeddingModel | None = None
    _stages: Stages = field(init=False)

    def __post_init__(self, report: Callable[[Progress], None]) -> None:
        self._stages = Stages(store=self.store, executor=self.executor, surroundings=self.surroundings, report=report)

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
        stages = self._stages
        with stages.timed(Phase.ROWS):
            build = await self._rows(build, spec, how, files, errors)
        with stages.timed(Phase.SHARDS):
            shards = await stages.shards(build, spec)
        with stages.timed(Phase.PUBLISHED):
            await stages.publish(build, replace=self.job.replace)
        return stages.summary(build, shards, errors)

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
        check_language(job.lexical.language)
        if self.source is not None:
            described = self._stages.results(self.executor.map(DescribeStep(source=self.source), [None]))
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
        self._stages.resumed = True
        return build

    async def _discard(self, build: Build) -> None:
        await self.store.builds.discard(build)
        await self.store.finish_deletions()
        await self._stages.remove_files(build.uid)

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
            async with aclosing(self._stages.results(prepared)) as ready:
                async for each in ready:
                    errors.add([(bad.place, bad.message) for bad in each.part.bad])
                    errors.add([(refused.place, refused.message) for refused in each.refused])
                    build = await self.store.builds.append(build, _built(build, each, errors.count))
                    self._stages.tell(build, Phase.ROWS, each.part.bytes_read, corpus.bytes_total)
        complete = BuiltPart(rows={}, documents=(), progress={**build.progress, "complete": True})
        return await self.store.builds.append(build, complete)


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
