"""The composition root of bulk builds: `python -m retrieval_svc.bulk`, as `penstock index` starts it.

It reads one JSON object from its input, {"build": {...}}, {"reshard": {"collection", "shard_count", "workers"}}, {"list": true}
or {"discard": "COLLECTION"}, and writes JSON lines:
{"progress": {...}} while it works, at least one a second, and last {"result": {...}} or {"error": {...}}. Settings are the
service's, from the environment, so that the model and the record are those that the service will have.
"""

import asyncio
import os
import signal
import sys
import threading
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # Before the libraries that read it; who wants more says so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import orjson
from pydantic import TypeAdapter, ValidationError

from penstock.errors import Internal, InvalidArgument, ModelNotFound, PenstockError
from retrieval_svc.bulk.build import BulkBuild
from retrieval_svc.bulk.executing import Executor
from retrieval_svc.bulk.job import BuildJob, ExecutorKind, Progress
from retrieval_svc.bulk.local_executor import LocalExecutor
from retrieval_svc.bulk.preparing import PreparingLimits
from retrieval_svc.bulk.resharding import Reshard
from retrieval_svc.bulk.service_model import ServiceModel
from retrieval_svc.bulk.surroundings import Surroundings
from retrieval_svc.data_directory import locked_directory
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.settings import RetrievalSettings

# What libraries print goes to the log: the lines are for whoever started this.
_out: Final = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
_writing: Final = threading.Lock()
_HEARTBEAT_S: Final = 1.0
_FAILED: Final = 1


def main() -> None:
    """Does what the input says."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = RetrievalSettings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    _beat()
    try:
        result = asyncio.run(_interruptible(settings, orjson.loads(sys.stdin.buffer.readline())))
    except PenstockError as error:
        _write({"error": _told(error)})
        sys.exit(_FAILED)
    _write({"result": result})


async def _interruptible(settings: RetrievalSettings, request: dict[str, Any]) -> Any:
    """SIGTERM and Ctrl-C end the work in order: its workers with it, and what was recorded stays."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # asyncio.run made it.
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        return await _do(settings, request)
    sys.exit(128 + signal.SIGINT)


async def _do(settings: RetrievalSettings, request: dict[str, Any]) -> Any:
    async with open_store(settings.resolved_database_url) as store:
        if "build" in request:
            return await _build(settings, store, _job(request["build"]))
        if "reshard" in request:
            return await _reshard(settings, store, _job(request["reshard"] | {"paths": ()}))
        if "discard" in request:
            return await _discard(store, request["discard"])
        return [
            {"collection": build.target, "uid": build.uid, "parts": build.part_count, **build.progress}
            for build in await store.builds.all()
        ]


def _job(document: Any) -> BuildJob:
    try:
        return TypeAdapter(BuildJob).validate_python(document)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidArgument(f"this cannot be built: {faults}") from error


async def _build(settings: RetrievalSettings, store: SqlStore, job: BuildJob) -> Any:
    around = _surroundings(settings, job)
    with locked_directory(around.work(job.collection)), closing(_executor(job, around, settings)) as executor:
        build = BulkBuild(
            job=job,
            store=store,
            executor=executor,
            source=_source(settings, job),
            surroundings=around,
            report=_tell,
        )
        return (await build.run()).to_json()


async def _reshard(settings: RetrievalSettings, store: SqlStore, job: BuildJob) -> Any:
    around = _surroundings(settings, job)
    with locked_directory(around.work(job.collection)), closing(_executor(job, around, settings)) as executor:
        reshard = Reshard(
            collection=job.collection,
            shard_count=job.shard_count,
            store=store,
            executor=executor,
            surroundings=around,
            report=_tell,
        )
        return (await reshard.run()).to_json()


def _executor(job: BuildJob, around: Surroundings, settings: RetrievalSettings) -> Executor:
    if job.executor is ExecutorKind.LOCAL:
        return LocalExecutor(around.workers)
    # Imported here: Ray is an extra, and a second of start-up.
    from retrieval_svc.bulk.ray_executor import RayExecutor  # noqa: PLC0415

    return RayExecutor(around.workers, threads=settings.embedding_threads, folder=around.work(job.collection))


def _source(settings: RetrievalSettings, job: BuildJob) -> ServiceModel | None:
    if job.dimension:
        return None
    models = settings.all_embedding_models
    chosen = next((each for each in models if job.model in {"", each.name}), None)
    if chosen is None:
        known = ", ".join(repr(each.name) for each in models) or "none"
        message = (
            f"the service is not set to load a model {job.model!r}; there are: {known}. "
            "Name one of those, or give --dimension for vectors that are there already"
        )
        raise ModelNotFound(message)
    folder = settings.resolved_model_cache_dir
    return ServiceModel(config=chosen.config, cache_dir=folder, threads=settings.embedding_threads)


def _surroundings(settings: RetrievalSettings, job: BuildJob) -> Surroundings:
    """Files stay where a service of this folder will look for them; where they go to a store and none has run here, they go."""
    folder, cores = settings.data_dir.absolute(), len(os.sched_getaffinity(0))
    used = not settings.database_url or (folder / "lock").exists()
    return Surroundings(
        folder=folder,
        database_url=settings.resolved_database_url,
        snapshot_url=settings.snapshot_url,
        keep_files=used or not settings.snapshot_url,
        cores=cores,
        workers=job.workers or max(1, cores // settings.embedding_threads),
        lexical_memory_bytes=settings.lexical_memory_bytes,
        shard_count=settings.shard_count,
        splitting=Splitting(chunk_tokens_max=settings.chunk_tokens_max, overlap_tokens=settings.chunk_overlap_tokens),
        limits=PreparingLimits(
            chunk_text_bytes_max=settings.chunk_text_bytes_max,
            document_text_bytes_max=settings.document_text_bytes_max,
            document_content_bytes_max=settings.document_content_bytes_max,
            extraction_timeout_s=settings.extraction_timeout_s,
            extraction_memory_bytes=settings.extraction_memory_bytes,
            pass_tokens_max=settings.embedding_pass_tokens_max,
        ),
    )


async def _discard(store: SqlStore, collection: str) -> Any:
    build = await store.builds.find(collection)
    if build is None:
        raise InvalidArgument(f"no build of {collection!r} was broken off; `penstock index builds` lists those that were")
    await store.builds.discard(build)
    await store.finish_deletions()
    return {"collection": collection}


def _tell(progress: Progress) -> None:
    _write({"progress": asdict(progress) | {"phase": progress.phase.value}})


def _told(error: PenstockError) -> dict[str, Any]:
    violations = [{"field": each.field, "message": each.message} for each in error.violations]
    message = "it failed for a reason of its own; see its log" if isinstance(error, Internal) else error.message
    return {"reason": error.reason, "message": message, "metadata": error.metadata, "violations": violations}


def _write(line: dict[str, Any]) -> None:
    with _writing:
        _out.write(orjson.dumps(line) + b"\n")
        _out.flush()


def _beat() -> None:
    """Writes a line a second: whoever started this and is gone closes the pipe, and this ends too."""

    def beat() -> None:
        while True:
            threading.Event().wait(_HEARTBEAT_S)
            try:
                _write({})
            except OSError:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


if __name__ == "__main__":
    main()
