"""The serving part's reference: vLLM's AsyncLLM, called by a loop in the process that holds it, as its own examples do.

Its arguments are those that the service gives it, and so is what counts its statistics, which costs less than vLLM's own; what
stands between a caller and AsyncLLM in the service is not here.
"""

import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import orjson
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from bench.closed_loop import Reply, drive, nothing_to_open
from bench.meter import Meter
from bench.worker import load_from
from generation_svc import vllm_api, vllm_arguments
from generation_svc.settings import GenerationSettings
from generation_svc.vllm_statistics import EngineStatistics


class AsyncLlmCaller:
    """Asks AsyncLLM. A payload is JSON: {"prompt", "max_tokens"}; answers have exactly so many tokens."""

    opened = staticmethod(nothing_to_open)

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._ids = itertools.count()

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # An engine has no connections.
        asked = orjson.loads(payload)
        tokens = asked["max_tokens"]
        sampling = SamplingParams(max_tokens=tokens, min_tokens=tokens, temperature=0.0, output_kind=RequestOutputKind.DELTA)
        first_at, events, output_tokens = 0.0, 0, 0
        async for output in self._llm.generate({"prompt": asked["prompt"]}, sampling, f"bench-{next(self._ids)}"):
            first_at = first_at or time.perf_counter()
            events += 1
            output_tokens += len(output.outputs[0].token_ids)
        # Of the engine's own clock, as the service tells it: from the moment at which it was asked.
        engine_first_s = output.metrics.first_token_ts - output.metrics.queued_ts
        return Reply(first_at=first_at, events=events, output_tokens=output_tokens, engine_first_s=engine_first_s)


@asynccontextmanager
async def serving() -> AsyncIterator[Mapping[str, Any]]:
    """The task of this role, once the model is loaded. Its settings come from the environment, as the service's do."""
    arguments = vllm_arguments.generating(GenerationSettings(), vllm_api.installation())
    llm = vllm_api.load(arguments, EngineStatistics(slots=arguments["max_num_seqs"]))

    async def run(*, load: Mapping[str, Any], pids: Mapping[str, list[int]]) -> dict[str, Any]:
        return asdict(await drive(AsyncLlmCaller(llm), load_from(load), Meter(pids)))

    async def ready() -> bool:
        return True

    try:
        yield {"run": run, "ready": ready}
    finally:
        llm.shutdown()
