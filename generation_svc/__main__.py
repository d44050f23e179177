"""The generation service's process: `python -m generation_svc`. Picks the engine and puts the parts together."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.core import Core
from generation_svc.engine import Engine, Feature, PoolingEngine
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from generation_svc.pooling import Pooling
from generation_svc.servicer import GenerationServicer
from generation_svc.settings import GenerationSettings
from generation_svc.vllm_version import check_version
from penstock.errors import FailedPrecondition
from penstock.generation.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from penstock.server import Assembly, Service, run

log = logging.getLogger("generation_svc")

OnDeath = Callable[[str], None]


# Each engine is imported only when it is chosen: their libraries need not, and vLLM's can't, share an environment.
async def _openvino(settings: GenerationSettings, on_death: OnDeath) -> Engine:
    from generation_svc.hub import fetched  # noqa: PLC0415
    from generation_svc.openvino_engine import OpenVinoEngine  # noqa: PLC0415
    from generation_svc.openvino_wire import Open  # noqa: PLC0415

    asked = Open(
        model_path=str(await fetched(settings.model)),
        device=settings.openvino_device,
        context_window=settings.context_window,
        max_tokens_default=settings.max_tokens_default,
        sequences_max=settings.running_max,
        batched_tokens_max=settings.openvino_batched_tokens_max,
        cache_gb=settings.openvino_cache_gb,
        prefix_caching=settings.openvino_prefix_caching,
        threads=settings.openvino_threads,
    )
    return await OpenVinoEngine.start(asked, served_name=settings.served_name, on_death=on_death)


async def _vllm(settings: GenerationSettings, on_death: OnDeath) -> Engine:
    if settings.model.endswith(".gguf"):
        message = "vLLM takes a checkpoint, not a GGUF file: penstock models prepare makes one; name its folder as the model"
        raise FailedPrecondition(message)
    check_version()
    from generation_svc.vllm_engine import VllmEngine  # noqa: PLC0415

    return await VllmEngine.start(settings, on_death=on_death)


async def _vllm_pooling(settings: GenerationSettings, on_death: OnDeath) -> PoolingEngine:
    check_version()
    from generation_svc.vllm_pooling_engine import VllmPoolingEngine  # noqa: PLC0415

    return await VllmPoolingEngine.start(settings, on_death=on_death)


async def _openai(settings: GenerationSettings, on_death: OnDeath) -> Engine:  # noqa: ARG001  # What is elsewhere can't die here.
    from generation_svc.openai_engine import OpenAiEngine  # noqa: PLC0415

    return await OpenAiEngine.start(settings)


ENGINES: Final[dict[str, Callable[[GenerationSettings, OnDeath], Awaitable[Engine]]]] = {
    "openvino": _openvino,
    "vllm": _vllm,
    "openai": _openai,
}

POOLING_ENGINES: Final[dict[str, Callable[[GenerationSettings, OnDeath], Awaitable[PoolingEngine]]]] = {
    "vllm-pooling": _vllm_pooling,
}


@asynccontextmanager
async def assemble(assembly: Assembly) -> AsyncIterator[None]:
    """Loads the model, mounts the servicer, and closes the engine after the drain."""
    settings: GenerationSettings = assembly.settings
    _check_room(settings)
    began = time.monotonic()
    log.info("%s loads %s", settings.engine, settings.model)
    is_pooling = settings.engine in POOLING_ENGINES
    engine = await (POOLING_ENGINES if is_pooling else ENGINES)[settings.engine](settings, assembly.stop)
    try:
        model = engine.models()[0]
        facts = f"window {model.context_window or 'unknown'}, {model.precision or 'precision unknown'}"
        log.info("models/%s is loaded after %.1f s: %s", model.name, time.monotonic() - began, facts)
        if settings.api_keys_file and settings.cache_per_tenant and Feature.CACHE_SALT not in model.features:
            log.warning(
                "the engine %s cannot keep tenants apart in its prefix cache: turn that off where it matters", model.engine
            )
        core = _core(engine, assembly)
        add_GenerationServiceServicer_to_server(GenerationServicer(core), assembly.dispatcher)  # type: ignore[no-untyped-call]  # Generated without types.
        yield
    finally:
        await engine.close()


def _core(engine: Engine | PoolingEngine, assembly: Assembly) -> Core:
    settings: GenerationSettings = assembly.settings
    admission = Admission(running_max=settings.running_max, waiting_max=settings.waiting_max)
    metrics = GenerationMetrics(assembly.telemetry.meter("generation"), assembly.telemetry.histograms)
    metrics.watch(admission, engine)
    if settings.engine in POOLING_ENGINES:
        return Pooling(engine=cast("PoolingEngine", engine), admission=admission)
    return Generation(
        engine=cast("Engine", engine),
        admission=admission,
        coalescing=Coalescing(
            tokens_max=settings.coalesce_tokens_max,
            delay_max_s=settings.coalesce_ms_max / 1000,
            unread_tokens_max=settings.unread_tokens_max,
            unread_max_s=settings.unread_max_s,
        ),
        tracer=assembly.telemetry.tracer("generation"),
        metrics=metrics,
        capture_content=assembly.telemetry.capture_content,
        cache_per_tenant=settings.cache_per_tenant,
    )


def _check_room(settings: GenerationSettings) -> None:
    """Who may wait for the engine must get as far as the queue, where tenants share and priorities count."""
    places = settings.running_max + settings.waiting_max
    if settings.concurrency_max < places:
        message = (
            f"PENSTOCK_GENERATION_CONCURRENCY_MAX is {settings.concurrency_max}, but {settings.running_max} requests may run "
            f"and {settings.waiting_max} wait: set it to {places} or more, or RUNNING_MAX and WAITING_MAX lower"
        )
        raise FailedPrecondition(message)


SERVICE: Final = Service(
    name="generation",
    rpc_services=("penstock.generation.v1.GenerationService",),
    settings=GenerationSettings,
    assemble=assemble,
    scopes={
        "Generate": "read",
        "StreamGenerate": "read",
        "ListModels": "read",
        "GetModel": "read",
        "GetLoad": "read",
        "Embed": "read",
        "Rerank": "read",
    },
)

if __name__ == "__main__":
    run(SERVICE)
