"""StreamGenerate over one connection, as the gateway calls it. Requests are bytes already."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from bench.closed_loop import Reply
from penstock.generation.v1 import generation_pb2 as pb

METHOD: Final = "/penstock.generation.v1.GenerationService/StreamGenerate"


class GenerateCaller:
    """Streams answers. A payload is a StreamGenerateRequest."""

    def __init__(self, *, target: str) -> None:
        self._target = target
        self._call: Any = None

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # One connection carries them all.
        async with grpc.aio.insecure_channel(self._target) as channel:
            await channel.channel_ready()
            self._call = channel.unary_stream(METHOD, None, pb.StreamGenerateResponse.FromString)
            yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # One connection carries them all.
        first_at, events = 0.0, 0
        try:
            async for message in self._call(payload):
                if message.HasField("delta"):
                    first_at = first_at or time.perf_counter()
                    events += 1
                elif message.HasField("done"):
                    done = message.done
        except grpc.aio.AioRpcError as error:
            return Reply(fault=error.code().name)
        return Reply(
            first_at=first_at,
            events=events,
            output_tokens=done.usage.output_tokens,
            engine_first_s=done.timings.first_token_s - done.timings.admitted_s,
        )
