"""A generation service's StreamGenerate over one connection. Requests are bytes already."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from bench.closed_loop import Reply
from penstock.generation.v1 import generation_pb2


class GenerationCaller:
    """Asks it, and counts the tokens that it says it made."""

    def __init__(self, *, target: str) -> None:
        self._target = target
        self._call: Any = None

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # One connection carries them all.
        async with grpc.aio.insecure_channel(self._target) as channel:
            await channel.channel_ready()
            self._call = channel.unary_stream(
                "/penstock.generation.v1.GenerationService/StreamGenerate",
                lambda request: request,
                generation_pb2.StreamGenerateResponse.FromString,
            )
            yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # One connection carries them all.
        first_at, events, output_tokens = 0.0, 0, 0
        try:
            async for message in self._call(payload):
                kind = message.WhichOneof("event")
                if kind == "delta":
                    first_at = first_at or time.perf_counter()
                    events += 1
                elif kind == "done":
                    output_tokens = message.done.usage.output_tokens
        except grpc.aio.AioRpcError as error:
            return Reply(fault=error.code().name)
        return Reply(first_at=first_at, events=events, output_tokens=output_tokens)
