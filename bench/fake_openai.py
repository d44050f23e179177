"""An OpenAI-compatible endpoint that answers at once, so that what is measured is everything in front of it.

    python -m bench.fake_openai                    prints its host:port in one line and serves until its standard input ends
    python -m bench.fake_openai --interval-ms 4    a stream has a token every 4 ms (0: as fast as it can), max_tokens of them

A whole answer is one constant. A stream has STREAM_TOKENS events, the first at once, one every STREAM_INTERVAL_S after it,
which is about what a GPU gives a single reader.
"""

import asyncio
import re
import sys
from typing import Final, cast

import httptools
import orjson
import uvloop

MODEL: Final = "instant"
STREAM_TOKENS: Final = 40
STREAM_INTERVAL_S: Final = 0.01

_BURST: Final = 16
"""Tokens that come at once in a burst: about what one read has of a model that is faster than its reader."""
_MAX_TOKENS: Final = re.compile(rb'"max_tokens":(\d+)')

_USAGE: Final = {"prompt_tokens": 8, "completion_tokens": STREAM_TOKENS, "total_tokens": 8 + STREAM_TOKENS}
_MODELS: Final = {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 8192}]}
_WHOLE: Final = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "At once."}, "finish_reason": "stop"}],
    "usage": _USAGE,
}


def _answer(value: object, status: bytes = b"200 OK") -> bytes:
    body = orjson.dumps(value)
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def _event(**fields: object) -> bytes:
    return _chunk(orjson.dumps({"id": "chatcmpl-0", "object": "chat.completion.chunk", "model": MODEL, **fields}))


_ANSWERS: Final = {b"/v1/models": _answer(_MODELS), b"/v1/chat/completions": _answer(_WHOLE)}
_NOT_FOUND: Final = _answer({"error": {"message": "there is no such path"}}, b"404 Not Found")
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN: Final = _event(choices=[{"index": 0, "delta": {"content": " word"}, "finish_reason": None}])
_ENDING: Final = (
    _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    + _event(choices=[], usage=_USAGE)
    + _chunk(b"[DONE]")
    + b"0\r\n\r\n"
)


class _Connection(asyncio.Protocol):
    """Answers one request after the other. The methods that begin with on_ are httptools' callbacks."""

    def __init__(self, *, interval_s: float | None = None) -> None:
        self._interval_s = interval_s
        self._tokens = STREAM_TOKENS
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = b""
        self._streams = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases.

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature.
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._streams = False

    def on_body(self, body: bytes) -> None:
        self._streams = self._streams or b'"stream":true' in body
        if self._interval_s is not None and (found := _MAX_TOKENS.search(body)):
            self._tokens = int(found[1])

    def on_message_complete(self) -> None:
        if self._streams:
            self._write(_HEAD)
            self._stream(self._tokens)
        else:
            self._write(_ANSWERS.get(self._path, _NOT_FOUND))

    def _stream(self, left: int) -> None:
        if not left:
            self._write(_ENDING)
            return
        if self._interval_s == 0:
            count = min(left, _BURST)
            self._write(_TOKEN * count)
            asyncio.get_running_loop().call_soon(self._stream, left - count)
            return
        self._write(_TOKEN)
        interval_s = STREAM_INTERVAL_S if self._interval_s is None else self._interval_s
        asyncio.get_running_loop().call_later(interval_s, self._stream, left - 1)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def _main(interval_s: float | None) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(interval_s=interval_s), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_main(float(sys.argv[2]) / 1000 if sys.argv[1:2] == ["--interval-ms"] else None))
