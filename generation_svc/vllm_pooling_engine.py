"""vLLM's pooling models as a PoolingEngine: one that embeds, or a cross-encoder that reads query and document together.

Texts of a call are separate requests to vLLM, which batches them with those of other calls.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final

from generation_svc import vllm_api, vllm_arguments
from generation_svc.engine import Embeddings, Feature, Load, ModelInfo, Scores, Usage
from generation_svc.settings import GenerationSettings
from generation_svc.vllm_running import RunningVllm
from penstock.errors import FailedPrecondition, InvalidArgument, PromptTooLong, UnsupportedFeature

ENGINE: Final = "vllm-pooling"
_CHARACTERS_PER_TOKEN_MAX: Final = 128
"""A text with more characters than a window of these is over it; tokenizing it would only take long."""


class VllmPoolingEngine:
    """A PoolingEngine over a running AsyncLLM. Made by `start`; `on_death(reason)` is called once if vLLM dies by itself."""

    def __init__(self, vllm: RunningVllm, *, model: ModelInfo) -> None:
        self._vllm = vllm
        self._model = model
        self._tokenizer = vllm.llm.get_tokenizer()
        self._pairs_have_separator = vllm.llm.model_config.use_sep_token
        # One thread: a tokenizer must not be used by two at once.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    @classmethod
    async def start(cls, settings: GenerationSettings, *, on_death: Callable[[str], None]) -> "VllmPoolingEngine":
        """Loads the model. Raises FailedPrecondition when it cannot be loaded, or neither embeds nor scores."""
        arguments = vllm_arguments.pooling(settings, vllm_api.installation())
        vllm = await RunningVllm.start(arguments, on_death=on_death)
        try:
            found = _features(await vllm.llm.get_supported_tasks(), vllm.llm.model_config)
            if not found:
                message = f"{arguments['model']} neither embeds texts nor scores pairs of them; name a model that does"
                raise FailedPrecondition(message)
            model = ModelInfo(
                name=settings.served_name, engine=ENGINE, context_window=vllm.llm.model_config.max_model_len, features=found
            )
            engine = cls(vllm, model=model)
            if settings.vllm_warm_up:
                await engine._warm_up()
        except BaseException:
            await vllm.close()
            raise
        return engine

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        self._check(Feature.EMBED)
        prompts = await self._tokenized(self._text_tokens, [(text,) for text in texts])
        outputs = await self._pooled(prompts, "embed")
        vectors = tuple(output.numpy().astype("<f4").tobytes() for output in outputs)
        return Embeddings(vectors=vectors, usage=_usage(prompts))

    async def score(self, query: str, documents: Sequence[str]) -> Scores:
        self._check(Feature.RERANK)
        prompts = await self._tokenized(self._pair_tokens, [(query, document) for document in documents])
        outputs = await self._pooled(prompts, "classify")
        return Scores(scores=tuple(float(output.item()) for output in outputs), usage=_usage(prompts))

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return self._vllm.health()

    def load(self) -> Load:
        return self._vllm.load()

    async def close(self) -> None:
        await self._vllm.close()
        self._thread.shutdown(wait=False)

    async def _warm_up(self) -> None:
        # What a device has no kernels for vLLM finds at the first request, and dies.
        await (self.embed(["warm"]) if Feature.EMBED in self._model.features else self.score("warm", ["up"]))

    def _check(self, feature: Feature) -> None:
        if feature not in self._model.features:
            can = ", ".join(sorted(self._model.features))
            message = f"the model {self._model.name} cannot {feature}; it can {can}"
            raise UnsupportedFeature(message, metadata={"features": feature, "engine": ENGINE, "model": self._model.name})

    async def _tokenized(self, tokens: Callable[..., Any], inputs: list[tuple[str, ...]]) -> list[dict[str, Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._all_tokens, tokens, inputs)

    def _all_tokens(self, tokens: Callable[..., Any], inputs: list[tuple[str, ...]]) -> list[dict[str, Any]]:
        return [self._fitting(number, tokens, parts) for number, parts in enumerate(inputs)]

    def _fitting(self, number: int, tokens: Callable[..., Any], parts: tuple[str, ...]) -> dict[str, Any]:
        window, characters = self._model.context_window, sum(map(len, parts))
        if characters > window * _CHARACTERS_PER_TOKEN_MAX:
            raise _too_long(number, characters // _CHARACTERS_PER_TOKEN_MAX, window, "at least ")
        try:
            encoded = dict(tokens(*parts))
        except (TypeError, UnicodeError) as error:  # What the tokenizer says of half of a surrogate pair.
            raise InvalidArgument(f"text {number} is not valid Unicode") from error
        if (found := len(encoded["input_ids"])) > window:
            raise _too_long(number, found, window)
        return encoded

    def _text_tokens(self, text: str) -> Any:
        return self._tokenizer(text)

    def _pair_tokens(self, query: str, document: str) -> Any:
        # A language model that is used as a reranker reads both as one text.
        return self._tokenizer(query, document) if self._pairs_have_separator else self._tokenizer(query + document)

    async def _pooled(self, prompts: list[dict[str, Any]], task: str) -> list[Any]:
        """A tensor for each prompt. All or none: the first failure stops the others, and so does a caller who leaves."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._pooled_one(prompt, task)) for prompt in prompts]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _pooled_one(self, prompt: dict[str, Any], task: str) -> Any:
        parameters = vllm_api.PoolingParams(task=task)
        if any(kinds := prompt.get("token_type_ids") or ()):
            # Where the second text begins: all that vLLM's models want to know of the kinds.
            parameters.extra_kwargs = {"compressed_token_type_ids": kinds.index(1)}
        outputs = self._vllm.llm.encode(vllm_api.tokens_input(prompt["input_ids"]), parameters, self._vllm.new_id())
        with self._vllm.translated():
            async with aclosing(outputs):
                async for output in outputs:
                    last = output
        return last.outputs.data


def _features(tasks: Sequence[str], model_config: Any) -> frozenset[Feature]:
    """A classifier scores pairs if it has one class; with more, none of them is "relevant"."""
    scores = "classify" in tasks and model_config.hf_config.num_labels == 1
    found = {Feature.EMBED: "embed" in tasks, Feature.RERANK: scores}
    return frozenset(feature for feature, there in found.items() if there)


def _usage(prompts: list[dict[str, Any]]) -> Usage:
    return Usage(input_tokens=sum(len(prompt["input_ids"]) for prompt in prompts))


def _too_long(number: int, tokens: int, window: int, how: str = "") -> PromptTooLong:
    message = f"text {number} has {how}{tokens} tokens, but the model's window holds {window}; split it"
    return PromptTooLong(message, metadata={"text": str(number), "prompt_tokens": str(tokens), "context_window": str(window)})
