"""An engine and an endpoint that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from generation_svc.engine import (
    Answer,
    Delta,
    Feature,
    Finished,
    FinishReason,
    GenerationRequest,
    Load,
    Message,
    ModelInfo,
    Role,
    Sampling,
    TokenLogprob,
    Usage,
)

GENERATING = frozenset(Feature) - {Feature.EMBED, Feature.RERANK}
MODEL = ModelInfo(
    name="small", engine="fake", context_window=100, precision="fp32", features=GENERATING, adapters=("legal", "support")
)


def ask(text: str = "What is a penstock?", *, streamed: bool = True, **asked: Any) -> GenerationRequest:
    """A request; what is not its own field is one of its sampling."""
    own = {name: asked.pop(name) for name in list(asked) if name in GenerationRequest.__slots__}
    messages = (Message(role=Role.USER, content=text),)
    return GenerationRequest(messages=messages, sampling=Sampling(**asked), streamed=streamed, **own)


@dataclass
class FakeEngine:
    """Says `words`, one delta each, `pause_s` apart; then finishes, or raises `error`, or never ends."""

    words: Sequence[str] = ("A ", "pipe", ".")
    pause_s: float = 0.0
    error: Exception | None = None
    endless: bool = False
    healthy: bool = True
    running: int = 0
    model: ModelInfo = MODEL
    requests: list[GenerationRequest] = field(default_factory=list)

    async def generate(self, request: GenerationRequest) -> Answer:
        self.requests.append(request)
        self.running += 1
        try:
            for word in self.words:
                await asyncio.sleep(self.pause_s)
                logprobs = (TokenLogprob(token=word, logprob=-0.5),) if request.logprobs else ()
                yield Delta(text=word, token_count=1, logprobs=logprobs)
            while self.endless:
                await asyncio.sleep(0.001)
                yield Delta(text="on ", token_count=1)
            if self.error is not None:
                raise self.error
            usage = Usage(input_tokens=5, output_tokens=len(self.words), cached_tokens=2)
            yield Finished(finish_reason=FinishReason.STOP, usage=usage)
        finally:
            self.running -= 1

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.model,)

    def health(self) -> bool:
        return self.healthy

    def load(self) -> Load:
        return Load(running=self.running, waiting=0)

    async def close(self) -> None:
        self.healthy = False


async def collect(answer: Answer) -> tuple[list[Delta], Finished]:
    *deltas, finished = [part async for part in answer]
    assert isinstance(finished, Finished)
    assert all(isinstance(delta, Delta) for delta in deltas)
    return deltas, finished


Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def endpoint(completions: Handler, models: Handler | None = None) -> AsyncIterator[str]:
    """A real HTTP server with an OpenAI-shaped API. Yields its base URL."""
    application = web.Application(client_max_size=64 * 2**20)
    application.router.add_post("/v1/chat/completions", completions)
    application.router.add_post("/v1/completions", completions)
    if models is not None:
        application.router.add_get("/v1/models", models)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
    finally:
        await runner.cleanup()


def chunk(text: str | None = None, *, finish_reason: str | None = None, **more: Any) -> bytes:
    """An event of a streamed chat completion."""
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": finish_reason, **more}
    return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"


def usage_chunk(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": {"cached_tokens": 3}}
    return b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"


def sse(*chunks: bytes) -> Handler:
    """A handler that streams these bytes, each written by itself."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in chunks:
            await response.write(part)
        return response

    return handle
