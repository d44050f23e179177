"""An HTTP endpoint of OpenAI's API that does as it is told, and the openai engine over it."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from generation_svc.openai_engine import OpenAiEngine
from generation_svc.settings import GenerationSettings

Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def endpoint(
    completions: Handler, models: Handler | None = None, root: dict[str, Handler] | None = None
) -> AsyncIterator[str]:
    """A real HTTP server with an OpenAI-shaped API, and what vLLM has beside it at the root. Yields its base URL."""
    application = web.Application(client_max_size=64 * 2**20)
    application.router.add_post("/v1/chat/completions", completions)
    application.router.add_post("/v1/completions", completions)
    if models is not None:
        application.router.add_get("/v1/models", models)
    for path, handler in (root or {}).items():
        application.router.add_route("*", path, handler)
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


def answering(status: int, body: object, headers: dict[str, str] | None = None) -> Handler:
    """A handler with one answer."""

    async def handle(request: web.Request) -> web.Response:
        text = body if isinstance(body, str) else orjson.dumps(body).decode()
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    return handle


def in_turn(*handlers: Handler) -> Handler:
    """A handler that does as these do, one after the other, and then as the last. `asked` has when it was asked."""

    async def handle(request: web.Request) -> web.StreamResponse:
        handle.asked.append(time.monotonic())
        return await handlers[min(len(handle.asked), len(handlers)) - 1](request)

    handle.asked = []
    return handle


def resetting(*chunks: bytes, length: int | None = None) -> Handler:
    """A handler that writes these bytes, if any, and then resets the connection (RST)."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={} if length is None else {"Content-Length": str(length)})
        if chunks:
            await response.prepare(request)
        for part in chunks:
            await response.write(part)
            await asyncio.sleep(0.02)  # A reset may overtake what was written.
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return response

    return handle


def sse(*chunks: bytes) -> Handler:
    """A handler that streams these bytes, each written by itself."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in chunks:
            await response.write(part)
        return response

    return handle


DONE = b"data: [DONE]\n\n"
ANSWER = (chunk(""), chunk("A pi"), chunk("pe."), chunk(finish_reason="stop"), usage_chunk(9, 4), DONE)


@asynccontextmanager
async def engine_over(
    completions: Handler, models: Handler | None = None, root: dict[str, Handler] | None = None, **settings: Any
) -> AsyncIterator[OpenAiEngine]:
    """The openai engine over a real HTTP server with these handlers."""
    async with endpoint(completions, models, root) as base_url:
        engine = await OpenAiEngine.start(endpoint_settings(base_url, **settings))
        try:
            yield engine
        finally:
            await engine.close()


def endpoint_settings(base_url: str, **settings: Any) -> GenerationSettings:
    return GenerationSettings(engine="openai", model="upstream", openai_base_url=base_url, **settings)
