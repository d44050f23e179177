"""Streamed answers over gRPC, and at which moments their tokens came.

Requests are bytes that were made beforehand, and what comes is only noted while it comes: the client must not be what is slow.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from penstock.channel import rpc_errors
from penstock.cli.command import api_key
from penstock.clients.connection import resource_name
from penstock.errors import ModelNotFound
from penstock.generation.v1 import generation_pb2 as pb

SERVICE: Final = "/penstock.generation.v1.GenerationService"
REFUSED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED.name
CUT_SHORT: Final = "CUT_SHORT"
"""What is wrong with a stream that ends well, but without having said how the answer ended."""
TIMEOUT_S: Final = 30.0
_MESSAGE_BYTES_MAX: Final = 64 * 2**20
_MODELS_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what came of it, in seconds of time.perf_counter.

    `arrivals` are the moments of deltas, each with its tokens; a delta without tokens is none. `fault` is the status that it
    failed with, and `said` its message.
    """

    sent: float
    ended: float
    arrivals: tuple[tuple[float, int], ...] = ()
    done: pb.StreamGenerateResponse.Done | None = None
    fault: str = ""
    said: str = ""


class Caller:
    """Sends ready requests over one channel."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        key = api_key()
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._timeout_s = timeout_s
        self._channel = channel
        self._stream: Any = channel.unary_stream(f"{SERVICE}/StreamGenerate", None, None)

    async def exchange(self, request: bytes) -> Exchange:
        """Sends it and reads to the end. Never raises what the service answers."""
        came: list[tuple[float, bytes]] = []
        fault = said = ""
        sent = time.perf_counter()
        try:
            async for message in self._stream(request, timeout=self._timeout_s, metadata=self._metadata):
                came.append((time.perf_counter(), message))  # noqa: PERF401  # What came before a failure stays.
        except grpc.aio.AioRpcError as error:
            fault, said = error.code().name, error.details() or ""
        ended = time.perf_counter()
        arrivals, done = _read(came)
        if not fault and done is None:
            fault, said = CUT_SHORT, "the stream ended without a last event"
        return Exchange(sent=sent, ended=ended, arrivals=arrivals, done=done, fault=fault, said=said)

    async def count_tokens(self, request: bytes) -> int:
        """Tokens of a request's prompt, as the service counts them. Raises its errors as ours."""
        counted = 0
        with rpc_errors("generation"):
            async for message in self._stream(request, timeout=self._timeout_s, metadata=self._metadata):
                counted = pb.StreamGenerateResponse.FromString(message).done.usage.input_tokens or counted
        return counted

    async def find_model(self, name: str) -> pb.Model:
        """The model of that name, or the service's first one. Raises ModelNotFound with those that there are."""
        with rpc_errors("generation"):
            answer = await self._ask("ListModels", pb.ListModelsRequest(page_size=_MODELS_MAX))
        models = pb.ListModelsResponse.FromString(answer).models
        wanted = resource_name("models", name or "default")
        for model in models:
            if wanted in {model.name, "models/default"}:
                return model
        raise ModelNotFound(f"there is no {wanted}; the service has {', '.join(each.name for each in models) or 'none'}")

    async def load(self) -> pb.GetLoadResponse:
        """What the service works on. Empty where it does not say: sizes are then told without its bounds."""
        try:
            return pb.GetLoadResponse.FromString(await self._ask("GetLoad", pb.GetLoadRequest()))
        except grpc.aio.AioRpcError:
            return pb.GetLoadResponse()

    async def _ask(self, method: str, request: pb.ListModelsRequest | pb.GetLoadRequest) -> bytes:
        call: Any = self._channel.unary_unary(f"{SERVICE}/{method}", None, None)
        answer: bytes = await call(request.SerializeToString(), timeout=TIMEOUT_S, metadata=self._metadata)
        return answer


@asynccontextmanager
async def calling(target: str, timeout_s: float) -> AsyncIterator[Caller]:
    """A caller of one service. Without balancing: what is measured and sized is one replica."""
    options = [("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX), ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield Caller(channel, timeout_s)


def _read(
    came: list[tuple[float, bytes]],
) -> tuple[tuple[tuple[float, int], ...], pb.StreamGenerateResponse.Done | None]:
    arrivals: list[tuple[float, int]] = []
    done = None
    for moment, message in came:
        event = pb.StreamGenerateResponse.FromString(message)
        if event.HasField("done"):
            done = event.done
        elif tokens := event.delta.token_count:
            arrivals.append((moment, tokens))
    return tuple(arrivals), done
