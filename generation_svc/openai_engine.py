"""Any OpenAI-compatible endpoint as an engine: vLLM serve, TGI, SGLang, Ollama, hosted models.

Streams where the caller streams and asks for the whole answer where it does not: parsing one JSON object costs a tenth of
parsing a hundred events. Connections are pooled, kept alive and bounded; closing the iterator closes the request's
connection, by which such servers know that nobody waits any more.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from typing import Any, Final

import aiohttp
import orjson

from generation_svc.engine import Answer, Delta, Finished, FinishReason, GenerationRequest, Load, ModelInfo, Usage
from generation_svc.openai_errors import error_in_stream, error_of
from generation_svc.settings import GenerationSettings
from generation_svc.sse import SseParser
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable, ModelNotFound, Overloaded, PenstockError, PromptTooLong

log = logging.getLogger("generation_svc.openai")

ENGINE: Final = "openai"
_BODY_BYTES_MAX: Final = 64 * 2**20
_PROBE_INTERVAL_S: Final = 0.5
_PROBE_ANSWER_S: Final = 10.0
_BEHIND_DEADLINE_S: Final = 0.5
_DRAIN_S: Final = 0.1
_SAMPLING_FIELDS: Final = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_DONE: Final = b"[DONE]"


class OpenAiEngine:
    """An Engine over one endpoint and one of its models. Made by `start`."""

    def __init__(self, settings: GenerationSettings, session: aiohttp.ClientSession, *, context_window: int) -> None:
        self._base_url = str(settings.openai_base_url).rstrip("/")
        self._upstream_model = settings.model
        self._max_tokens_default = settings.max_tokens_default
        self._deadline_s = settings.deadline_s
        self._connect_timeout_s = settings.openai_connect_timeout_s
        self._idle_timeout_s = settings.openai_idle_timeout_s
        self._session = session
        self._model = ModelInfo(name=settings.served_name, engine=ENGINE, context_window=context_window)
        self._running = 0

    @classmethod
    async def start(cls, settings: GenerationSettings) -> "OpenAiEngine":
        """Waits until the endpoint answers. Raises BackendUnavailable when it does not, ModelNotFound, FailedPrecondition."""
        key = settings.openai_api_key.get_secret_value()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.running_max, keepalive_timeout=60),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            skip_auto_headers=("User-Agent",),
        )
        try:
            window = await _probe(session, settings)
        except BaseException:
            await session.close()
            raise
        return cls(settings, session, context_window=window or settings.context_window)

    async def generate(self, request: GenerationRequest) -> Answer:
        self._check_room(request.sampling.max_tokens or 0)
        self._running += 1
        try:
            with _translated(self._base_url):
                async with self._post(request) as response:
                    if response.status != 200:
                        raise error_of(response.status, response.headers, await _body(response))
                    async with aclosing(_streamed(response) if request.streamed else _whole(response)) as parts:
                        async for part in parts:
                            yield part
        finally:
            self._running -= 1

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return not self._session.closed

    def load(self) -> Load:
        return Load(running=self._running, waiting=0)

    async def close(self) -> None:
        await self._session.close()

    def _check_room(self, max_tokens: int) -> None:
        """Only the endpoint can count its prompt's tokens; what leaves room for none is known here."""
        window = self._model.context_window
        if window and max_tokens >= window:
            message = f"{max_tokens} tokens for the answer leave none for a prompt in the model's window of {window}"
            raise PromptTooLong(message, metadata={"max_tokens": str(max_tokens), "context_window": str(window)})

    def _post(self, request: GenerationRequest) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
        """The endpoint's answer. Its connection goes back to the pool when it was read to the end, and is closed else."""
        path = "/chat/completions" if request.messages else "/completions"
        timeout = aiohttp.ClientTimeout(
            # The runtime's own deadline comes before, and says better whose time was up.
            total=remaining_s(self._deadline_s) + _BEHIND_DEADLINE_S,
            sock_connect=self._connect_timeout_s,
            sock_read=self._idle_timeout_s,
        )
        headers = {"Content-Type": "application/json", **request.trace_headers}
        body = orjson.dumps(self._body(request))
        return self._session.post(self._base_url + path, data=body, headers=headers, timeout=timeout)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {"model": self._upstream_model, "max_tokens": sampling.max_tokens or self._max_tokens_default}
        if request.messages:
            body["messages"] = [{"role": message.role.value, "content": message.content} for message in request.messages]
        else:
            body["prompt"] = request.prompt
        body |= {name: value for name in _SAMPLING_FIELDS if (value := getattr(sampling, name)) is not None}
        if sampling.top_k is not None:
            body["top_k"] = sampling.top_k  # Not OpenAI's own, but what vLLM, SGLang and Ollama call it.
        if sampling.stop:
            body["stop"] = sampling.stop
        if request.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


async def _streamed(response: aiohttp.ClientResponse) -> Answer:
    parser, end = SseParser(), _End()
    async for chunk in response.content.iter_any():
        for event in parser.feed(chunk):
            if event == _DONE:
                await _drain(response)
                yield end.finished()
                return
            if (delta := end.take(_json(event))) is not None:
                yield delta
    # Some endpoints leave [DONE] out. Without a finish reason, though, it is the connection that ended, not the answer.
    yield end.finished()


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads the little that follows [DONE], so that the connection goes back to the pool. Waits for it only so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await response.content.readany()


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    answer, end = _json(await _body(response)), _End()
    delta = end.take(answer)
    tokens = end.usage.output_tokens
    if delta is not None:
        yield Delta(text=delta.text, token_count=tokens)
    yield end.finished()


class _End:
    """Reads choices, and gathers what the end of the answer says."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._reason = ""
        self._matched_stop = ""
        self._counted = 0

    def take(self, event: Any) -> Delta | None:
        """The text of one event. Raises the error that it carries."""
        if error := event.get("error"):
            raise error_in_stream(error)
        if usage := event.get("usage"):
            self.usage = _usage(usage)
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        self._reason = choice.get("finish_reason") or self._reason
        stop = choice.get("stop_reason")  # vLLM's: the stop string, or the number of a stop token.
        self._matched_stop = stop if isinstance(stop, str) else self._matched_stop
        text = (choice.get("delta") or choice.get("message") or {}).get("content") or choice.get("text")
        if not text:
            return None
        self._counted += 1
        return Delta(text=text, token_count=1)

    def finished(self) -> Finished:
        if not self._reason:
            raise BackendUnavailable("the endpoint ended the answer before it was finished", metadata={"service": "openai"})
        return Finished(
            finish_reason=FinishReason.LENGTH if self._reason == "length" else FinishReason.STOP,
            matched_stop=self._matched_stop,
            # Endpoints that count nothing: one event is about one token.
            usage=self.usage if self.usage.output_tokens else Usage(output_tokens=self._counted),
        )


async def _probe(session: aiohttp.ClientSession, settings: GenerationSettings) -> int:
    """Waits for the endpoint. The model's window as it lists it, 0 where it does not say."""
    until = time.monotonic() + settings.openai_ready_timeout_s
    while True:
        try:
            return await _listed_window(session, settings)
        except (BackendUnavailable, Overloaded) as error:
            if time.monotonic() > until:
                message = f"{error.message}; is the endpoint up, and PENSTOCK_GENERATION_OPENAI_BASE_URL right?"
                raise BackendUnavailable(message, metadata=error.metadata) from error
            log.info("waiting: %s", error.message)
        await asyncio.sleep(_PROBE_INTERVAL_S)


async def _listed_window(session: aiohttp.ClientSession, settings: GenerationSettings) -> int:
    url = str(settings.openai_base_url).rstrip("/") + "/models"
    timeout = aiohttp.ClientTimeout(total=settings.openai_connect_timeout_s + _PROBE_ANSWER_S)
    with _translated(url):
        async with session.get(url, timeout=timeout) as response:
            body = await _body(response)
    if response.status == 404:
        return 0  # It has no such list; whether it has the model, the first request will tell.
    if response.status != 200:
        raise error_of(response.status, response.headers, body)
    return _window_of(settings.model, _json(body))


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise _unreachable(url, "did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise _unreachable(url, f"cannot be reached ({error.os_error})") from error
    except aiohttp.ClientError as error:
        raise _unreachable(url, f"broke off ({type(error).__name__})") from error


def _unreachable(url: str, what: str) -> BackendUnavailable:
    return BackendUnavailable(f"the endpoint {url} {what}", metadata={"service": ENGINE, "endpoint": url})


def _window_of(name: str, listed: Any) -> int:
    models = {model.get("id"): model for model in listed.get("data") or () if isinstance(model, dict)}
    if models and name not in models:
        message = f"the endpoint has no model {name!r}; PENSTOCK_GENERATION_MODEL must be one of {', '.join(map(str, models))}"
        raise ModelNotFound(message)
    window = models.get(name, {}).get("max_model_len")
    return window if isinstance(window, int) else 0


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(_BODY_BYTES_MAX)
    while not response.content.at_eof() and len(body) < _BODY_BYTES_MAX:
        body += await response.content.read(_BODY_BYTES_MAX - len(body))
    return body


def _json(data: bytes) -> Any:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _not_the_dialect() from error
    if not isinstance(parsed, dict):
        raise _not_the_dialect()
    return parsed


def _not_the_dialect() -> PenstockError:
    return BackendUnavailable("the endpoint did not answer in OpenAI's dialect; is the base URL right?")
