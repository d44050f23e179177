"""vLLM's AsyncLLM in this process: continuous batching, prefix caching, quantised checkpoints, on GPUs or on vLLM's CPU build.

AsyncLLM computes in a process of its own, so the event loop stays free. Prompts are tokenized here, in one thread, because the
room for the answer must be known before the engine gets them.
"""

import asyncio
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from multiprocessing import resource_tracker
from typing import Any, Final

from vllm import AsyncEngineArgs, SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from generation_svc.engine import (
    Answer,
    Delta,
    Finished,
    FinishReason,
    GenerationRequest,
    Load,
    ModelInfo,
    Timings,
    Usage,
    answer_room,
)
from generation_svc.settings import GenerationSettings
from penstock.errors import EngineFailed, FailedPrecondition, InvalidArgument
from penstock.model_files import locate_model

log = logging.getLogger("generation_svc.vllm")

ENGINE: Final = "vllm"
_WATCH_INTERVAL_S: Final = 1.0
_GIB: Final = 2**30
_PRECISIONS: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_SAMPLING_FIELDS: Final = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")


class VllmEngine:
    """An Engine over a running AsyncLLM. Made by `start`; `on_death(reason)` is called once if vLLM dies by itself."""

    def __init__(self, llm: Any, *, model: ModelInfo, max_tokens_default: int, on_death: Callable[[str], None]) -> None:
        self._llm = llm
        self._model = model
        self._max_tokens_default = max_tokens_default
        self._on_death = on_death
        self._tokenizer = llm.get_tokenizer()
        # One thread: a tokenizer must not be used by two at once.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._sampling_of_model: dict[str, Any] = llm.model_config.get_diff_sampling_param()
        self._ids = itertools.count(1)
        self._monotonic_offset_ns = time.time_ns() - time.monotonic_ns()
        self._watch = asyncio.create_task(self._watch_over())

    @classmethod
    async def start(cls, settings: GenerationSettings, *, on_death: Callable[[str], None]) -> "VllmEngine":
        """Loads the model, which takes tens of seconds. Raises FailedPrecondition when it cannot be loaded."""
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # It would tell its makers of every start.
        args = engine_args(settings)
        try:
            # In a thread, so that health and NOT_READY are answered meanwhile.
            llm = await asyncio.to_thread(_load, args)
        except Exception as error:
            message = f"vLLM cannot load {args.model}: {error}; its log above has the whole of it"
            raise FailedPrecondition(message) from error
        model = ModelInfo(
            name=settings.served_name,
            engine=ENGINE,
            context_window=llm.model_config.max_model_len,
            precision=_precision(llm.model_config),
        )
        return cls(llm, model=model, max_tokens_default=settings.max_tokens_default, on_death=on_death)

    async def generate(self, request: GenerationRequest) -> Answer:
        prompt_ids = await asyncio.get_running_loop().run_in_executor(self._tokenizing, self._prompt_ids, request)
        output_tokens = 0
        try:
            parameters = self._parameters(request, len(prompt_ids))
            outputs = self._llm.generate(tokens_input(prompt_ids), parameters, f"penstock-{next(self._ids)}")
            async with aclosing(outputs):
                async for output in outputs:
                    completion = output.outputs[0]
                    output_tokens += len(completion.token_ids)
                    if completion.text or completion.token_ids:
                        yield Delta(text=completion.text, token_count=len(completion.token_ids))
                    if output.finished:
                        yield self._finished(output, completion, len(prompt_ids), output_tokens)
        except EngineDeadError as error:
            raise EngineFailed("vLLM's engine has died; this process is about to leave and be restarted") from error
        except VLLMClientError as error:
            raise InvalidArgument(f"vLLM refuses the request: {error}") from error
        except EngineGenerateError as error:
            raise EngineFailed("vLLM failed in this request") from error

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return not self._llm.errored

    def load(self) -> Load:
        return Load(running=self._llm.get_num_unfinished_requests(), waiting=0)

    async def close(self) -> None:
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        await asyncio.to_thread(self._llm.shutdown)
        self._tokenizing.shutdown(wait=False)

    async def _watch_over(self) -> None:
        """AsyncLLM tells of its death only to requests; a replica without any must leave too."""
        while not self._llm.errored:  # noqa: ASYNC110  # vLLM has no event for it.
            await asyncio.sleep(_WATCH_INTERVAL_S)
        self._on_death("vLLM's engine has died; its log above says why")

    def _prompt_ids(self, request: GenerationRequest) -> list[int]:
        if not request.messages:
            return list(self._tokenizer.encode(request.prompt))
        if not self._tokenizer.chat_template:
            raise FailedPrecondition("the model has no chat template; give a prompt instead of messages")
        messages = [{"role": message.role.value, "content": message.content} for message in request.messages]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # The template is the model's own program and raises what it likes.
            message = f"the model's chat template does not take these messages: {error}"
            raise InvalidArgument(message, metadata={"field": "messages"}) from error
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _parameters(self, request: GenerationRequest, prompt_tokens: int) -> SamplingParams:
        sampling = request.sampling
        max_tokens = answer_room(
            prompt_tokens=prompt_tokens,
            max_tokens=sampling.max_tokens,
            max_tokens_default=self._max_tokens_default,
            window=self._model.context_window,
        )
        asked = {name: value for name in _SAMPLING_FIELDS if (value := getattr(sampling, name)) is not None}
        kind = RequestOutputKind.DELTA if request.streamed else RequestOutputKind.FINAL_ONLY
        return SamplingParams(
            **{**self._sampling_of_model, **asked},
            max_tokens=max_tokens,
            stop=list(sampling.stop),
            output_kind=kind,
        )

    def _finished(self, output: Any, completion: Any, prompt_tokens: int, output_tokens: int) -> Finished:
        stop = completion.stop_reason
        return Finished(
            finish_reason=FinishReason.LENGTH if completion.finish_reason == "length" else FinishReason.STOP,
            matched_stop=stop if isinstance(stop, str) else "",
            usage=Usage(input_tokens=prompt_tokens, output_tokens=output_tokens, cached_tokens=output.num_cached_tokens or 0),
            timings=self._timings(output.metrics),
        )

    def _timings(self, metrics: Any) -> Timings | None:
        if metrics is None or not metrics.scheduled_ts:
            return None
        scheduled, first, last = (
            int(seconds * 1e9) + self._monotonic_offset_ns
            for seconds in (metrics.scheduled_ts, metrics.first_token_ts, metrics.last_token_ts)
        )
        return Timings(scheduled_ns=scheduled, first_token_ns=first, last_token_ns=last)


def engine_args(settings: GenerationSettings) -> AsyncEngineArgs:
    """VLLM's arguments, every one that matters said explicitly. Checkpoints say themselves how they are quantised."""
    return AsyncEngineArgs(
        model=locate_model(settings.model),
        served_model_name=settings.served_name,
        dtype=settings.vllm_dtype,
        max_model_len=settings.context_window or None,
        max_num_seqs=settings.running_max,
        max_num_batched_tokens=settings.vllm_batched_tokens_max or None,
        enable_prefix_caching=settings.vllm_prefix_caching,
        enable_chunked_prefill=True,
        enforce_eager=settings.vllm_enforce_eager,
        gpu_memory_utilization=settings.vllm_gpu_memory_fraction,
        kv_cache_memory_bytes=int(settings.vllm_cache_gb * _GIB) or None,
        tensor_parallel_size=settings.vllm_tensor_parallel,
        trust_remote_code=settings.vllm_trust_remote_code,
        enable_log_requests=False,
        # Its statistics carry the timestamps of our spans.
        disable_log_stats=False,
    )


def _load(args: AsyncEngineArgs) -> Any:
    # Ctrl-C goes to the whole group, and vLLM's processes would leave at once, in the middle of the answers for which the
    # service still waits. They inherit what this thread blocks, but Python's resource tracker unblocks it when it starts.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return AsyncLLM.from_engine_args(args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _precision(model_config: Any) -> str:
    """What the checkpoint says of its weights, such as "int8-w8a8", "fp8" or "bfloat16"."""
    config = getattr(model_config.hf_config, "quantization_config", None)
    if not config:
        return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(
            str(model_config.dtype).removeprefix("torch."), ""
        )
    config = config if isinstance(config, dict) else config.to_dict()
    groups: Sequence[Any] = list(config.get("config_groups", {}).values())
    if groups and groups[0].get("input_activations"):
        weights, activations = groups[0]["weights"], groups[0]["input_activations"]
        return f"{weights['type']}{weights['num_bits']}-w{weights['num_bits']}a{activations['num_bits']}"
    return str(config.get("quant_method", ""))
