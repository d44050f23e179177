"""Any OpenAI-compatible endpoint as an engine: vLLM serve, SGLang, TGI, Ollama, hosted models.

Streams where the caller streams and asks for the whole answer where it does not.

    probe at the start -> check -> (quiet -> body -> post -> read) until a token came -> read on

What the endpoint can do is found out at the start (openai_probe) and declared. A request is put into its dialect
(openai_request), tried, tried again where that may help and nothing has come yet (openai_retries), and its answer is read
(openai_answer). Closing the iterator closes the request's connection.
"""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from generation_svc.engine import Answer, GenerationRequest, Load, ModelInfo
from generation_svc.openai_answer import AnswerReader, json_object, streamed
from generation_svc.openai_errors import error_of
from generation_svc.openai_http import Endpoint, read_all
from generation_svc.openai_probe import Found, probe
from generation_svc.openai_request import Asking
from generation_svc.openai_retries import Retries
from generation_svc.openai_tokens import NamedTokens
from generation_svc.settings import GenerationSettings
from penstock.errors import AdapterNotFound, EngineFailed, ModelNotFound, PenstockError

_DRAIN_S: Final = 0.1
_CLOSED: Final = "the service is going away, and has closed its connections"


@dataclass(slots=True)
class _Progress:
    """Whether the endpoint has begun to give an answer, which is then not asked for again."""

    begun: bool = False


class OpenAiEngine:
    """An Engine over one endpoint and one of its models. Made by `start`."""

    def __init__(self, settings: GenerationSettings, endpoint: Endpoint, found: Found) -> None:
        self._endpoint = endpoint
        self._model = found.model
        self._dialect = found.dialect
        self._asking = Asking(
            dialect=found.dialect,
            upstream_model=settings.model,
            max_tokens_default=settings.max_tokens_default,
            max_tokens_field=settings.openai_max_tokens_field,
            priorities=settings.openai_priorities,
        )
        self._chat_url = endpoint.base_url / "chat/completions"
        self._raw_url = endpoint.base_url / "completions"
        self._tokens = NamedTokens(endpoint)
        self._retries = Retries(retries_max=settings.openai_retries_max, retry_after_max_s=settings.openai_retry_after_max_s)
        self._running = 0

    @classmethod
    async def start(cls, settings: GenerationSettings) -> "OpenAiEngine":
        """Waits until the endpoint answers. Raises BackendUnavailable when it does not, ModelNotFound, FailedPrecondition."""
        endpoint = Endpoint(settings)
        try:
            found = await probe(endpoint, settings)
        except BaseException:
            await endpoint.close()
            raise
        return cls(settings, endpoint, found)

    async def generate(self, request: GenerationRequest) -> Answer:
        self._asking.check(request, self._model)
        tries = self._retries.request()
        self._running += 1
        try:
            while True:
                await tries.ready()
                progress = _Progress()
                try:
                    async with aclosing(self._tried(request, progress)) as parts:
                        async for part in parts:
                            progress.begun = True
                            yield part
                except PenstockError as error:
                    if self._endpoint.closed:
                        raise EngineFailed(_CLOSED) from error
                    if progress.begun:
                        raise
                    await tries.failed(error)
                else:
                    tries.worked()
                    return
        finally:
            self._running -= 1

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return not self._endpoint.closed

    def load(self) -> Load:
        return Load(running=self._running, waiting=0)

    async def close(self) -> None:
        await self._endpoint.close()

    async def _tried(self, request: GenerationRequest, progress: _Progress) -> Answer:
        if self._endpoint.closed:
            raise EngineFailed(_CLOSED)
        named = await self._named(request)
        body = self._asking.body(request, tuple(number for _, number in named))
        url = self._chat_url if request.messages else self._raw_url
        reader = AnswerReader(request, self._dialect, named)
        with self._endpoint.translated():
            async with self._endpoint.post(url, body, dict(request.trace_headers), streamed=request.streamed) as response:
                if response.status != 200:
                    raise _refusal(request, error_of(response.status, response.headers, await read_all(response)))
                if request.streamed:
                    async with aclosing(streamed(response.content.iter_any(), reader)) as deltas:
                        async for delta in deltas:
                            yield delta
                    await _drain(response)
                elif (whole := reader.take(await _object(response, progress))) is not None:
                    yield whole
                yield reader.finished()

    async def _named(self, request: GenerationRequest) -> tuple[tuple[str, int], ...]:
        if request.logprobs is None or not request.logprobs.tokens:
            return ()
        return await self._tokens.numbers(self._asking.model(request), request.logprobs.tokens)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads the little that follows [DONE], so that the connection goes back to the pool. Waits for it only so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await response.content.readany()


async def _object(response: aiohttp.ClientResponse, progress: _Progress) -> Any:
    begin = await response.content.readany()
    progress.begun = bool(begin)  # The endpoint has done its work: what breaks now is not worth doing it again.
    return json_object(begin + await read_all(response))


def _refusal(request: GenerationRequest, error: PenstockError) -> PenstockError:
    """The endpoint knows adapters as models, and may have dropped one since it listed it."""
    if request.adapter and isinstance(error, ModelNotFound):
        metadata = {**error.metadata, "adapter": request.adapter}
        return AdapterNotFound(f"the endpoint has no adapter {request.adapter!r} any more: {error.message}", metadata=metadata)
    return error
