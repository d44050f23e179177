"""vLLM's AsyncLLM in this process: continuous batching, prefix caching, quantised checkpoints, on GPUs or on vLLM's CPU build.

AsyncLLM computes in a process of its own, so the event loop stays free. Prompts are tokenized here, in one thread, because the
room for the answer must be known before the engine gets them. vllm_running says how it starts, is watched and ends.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from generation_svc import vllm_api, vllm_arguments
from generation_svc.engine import (
    Answer,
    Feature,
    FinishReason,
    GenerationRequest,
    Load,
    LogprobOptions,
    ModelInfo,
    Sampling,
    answer_room,
)
from generation_svc.precisions import precision_of
from generation_svc.settings import GenerationSettings
from generation_svc.vllm_answer import AnswerParts
from generation_svc.vllm_forms import CheckedForm, Forms
from generation_svc.vllm_prompt import Prompts
from generation_svc.vllm_running import RunningVllm
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.model_files import locate_model

ENGINE: Final = "vllm"
_POOLING_FEATURES: Final = frozenset({Feature.EMBED, Feature.RERANK})


class VllmEngine:
    """An Engine over a running AsyncLLM. Made by `start`; `on_death(reason)` is called once if vLLM dies by itself."""

    def __init__(self, vllm: RunningVllm, settings: GenerationSettings, *, adapters: Mapping[str, Any]) -> None:
        self._vllm = vllm
        self._adapters = adapters
        self._max_tokens_default = settings.max_tokens_default
        self._model = model = ModelInfo(
            name=settings.served_name,
            engine=ENGINE,
            context_window=vllm.llm.model_config.max_model_len,
            precision=_precision(vllm.llm.model_config),
            features=features(adapters=bool(adapters), speculative=bool(settings.vllm_speculative)),
            adapters=tuple(adapters),
        )
        self._prompts = Prompts(vllm.llm.get_tokenizer(), window=model.context_window)
        self._forms = Forms(vllm.llm)
        self._sampling_of_model: dict[str, Any] = vllm.llm.model_config.get_diff_sampling_param()

    @classmethod
    async def start(cls, settings: GenerationSettings, *, on_death: Callable[[str], None]) -> "VllmEngine":
        """Loads the model, which takes tens of seconds. Raises FailedPrecondition when it cannot be loaded."""
        arguments = vllm_arguments.generating(settings, vllm_api.installation())
        vllm = await RunningVllm.start(arguments, on_death=on_death)
        try:
            engine = cls(vllm, settings, adapters=await _loaded_adapters(vllm.llm, settings.vllm_adapters))
            if settings.vllm_warm_up:
                await engine._warm_up()
        except BaseException:
            await vllm.close()
            raise
        return engine

    async def generate(self, request: GenerationRequest) -> Answer:
        prompt_ids = await self._prompts.tokens(request)
        form = await self._forms.checked(request.structured_output) if request.structured_output is not None else None
        parameters = await self._parameters(request, len(prompt_ids), form)
        parts = AnswerParts(request, prompt_tokens=len(prompt_ids), named=parameters.logprob_token_ids or ())
        outputs = self._vllm.llm.generate(
            vllm_api.tokens_input(prompt_ids, cache_salt=request.cache_salt or None),
            parameters,
            self._vllm.new_id(),
            lora_request=self._adapters[request.adapter] if request.adapter else None,
            priority=-request.priority,  # vLLM computes the smaller first.
        )
        with self._vllm.translated():
            async with aclosing(outputs):
                async for output in outputs:
                    if (delta := parts.delta(output.outputs[0])) is not None:
                        yield delta
                    if output.finished:
                        finished = parts.finished(output)
                        if form is not None and finished.finish_reason is FinishReason.STOP and not finished.matched_stop:
                            await self._forms.check_answer(form, parts.token_ids)
                        yield finished

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return self._vllm.health()

    def load(self) -> Load:
        return self._vllm.load()

    async def close(self) -> None:
        await self._vllm.close()
        self._prompts.close()
        self._forms.close()

    async def _warm_up(self) -> None:
        request = GenerationRequest(prompt="warm", sampling=Sampling(max_tokens=1), logprobs=LogprobOptions(top=1))
        async with aclosing(self.generate(request)) as parts:
            async for _ in parts:
                pass

    async def _parameters(self, request: GenerationRequest, prompt_tokens: int, form: CheckedForm | None) -> Any:
        sampling = request.sampling
        asked: dict[str, Any] = sampling.numbers()
        if request.logprobs is not None:
            asked |= await self._logprobs(request.logprobs)
        if form is not None:
            asked["structured_outputs"] = form.parameters
        asked["max_tokens"] = answer_room(
            prompt_tokens=prompt_tokens,
            max_tokens=sampling.max_tokens,
            max_tokens_default=self._max_tokens_default,
            window=self._model.context_window,
        )
        kinds = vllm_api.RequestOutputKind
        fixed = {
            "stop": list(sampling.stop),
            "include_stop_str_in_output": sampling.include_stop,
            "output_kind": kinds.DELTA if request.streamed else kinds.FINAL_ONLY,
            "skip_clone": True,  # It is this request's own.
        }
        try:
            return vllm_api.SamplingParams(**{**self._sampling_of_model, **asked, **fixed})
        except vllm_api.PARAMETER_FAULTS as error:
            raise InvalidArgument(f"sampling: {error}", metadata={"field": "sampling"}) from error

    async def _logprobs(self, logprobs: LogprobOptions) -> dict[str, Any]:
        if logprobs.tokens:
            return {"logprob_token_ids": await self._prompts.named(logprobs.tokens)}
        return {"logprobs": logprobs.top}


def features(*, adapters: bool, speculative: bool) -> frozenset[Feature]:
    """What vLLM can do beside plain sampling, set up like this."""
    lacking = set(_POOLING_FEATURES)
    if not adapters:
        lacking.add(Feature.ADAPTER)
    if speculative:
        lacking.add(Feature.MIN_P)  # vLLM refuses it for the tokens that a draft proposes.
    return frozenset(Feature) - lacking


async def _loaded_adapters(llm: Any, paths: Mapping[str, str]) -> dict[str, Any]:
    """Every adapter, read once, so that a broken one is found at the start and not by a caller."""
    adapters: dict[str, Any] = {}
    for number, (name, path) in enumerate(paths.items(), start=1):
        adapter = vllm_api.LoRARequest(lora_name=name, lora_int_id=number, lora_path=locate_model(path))
        try:
            await llm.add_lora(adapter)
        except Exception as error:  # vLLM's engine passes on whatever its loaders raise.
            raise FailedPrecondition(f"vLLM cannot load the adapter {name!r} from {path}: {error}") from error
        adapters[name] = adapter
    return adapters


def _precision(model_config: Any) -> str:
    config = model_config.hf_config.to_dict()
    return precision_of(config, dtype=str(model_config.dtype), loaded_as=model_config.quantization or "")
