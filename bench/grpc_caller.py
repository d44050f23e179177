"""gRPC over one connection. Requests are bytes already; answers are parsed only where a stream's events must be told apart."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from bench.closed_loop import Reply
from penstock.flow.v1 import flow_pb2


class GrpcCaller:
    """Calls one method. A stream's messages are StreamFlowResponse."""

    def __init__(self, *, target: str, method: str, streams: bool) -> None:
        self._target = target
        self._method = method
        self._streams = streams
        self._call: Any = None

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # One connection carries them all.
        async with grpc.aio.insecure_channel(self._target) as channel:
            await channel.channel_ready()
            if self._streams:
                self._call = channel.unary_stream(self._method, _as_it_is, flow_pb2.StreamFlowResponse.FromString)
            else:
                self._call = channel.unary_unary(self._method, _as_it_is, _as_it_is)
            yield

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # One connection carries them all.
        try:
            if self._streams:
                return await self._read_stream(payload)
            await self._call(payload)
        except grpc.aio.AioRpcError as error:
            return Reply(fault=error.code().name)
        return Reply()

    async def _read_stream(self, payload: bytes) -> Reply:
        first_at, events, output_tokens = 0.0, 0, 0
        async for message in self._call(payload):
            kind = message.WhichOneof("event")
            if kind == "token":
                first_at = first_at or time.perf_counter()
                events += 1
            elif kind == "done":
                output_tokens = message.done.usage.output_tokens
        return Reply(first_at=first_at, events=events, output_tokens=output_tokens)


def _as_it_is(data: bytes) -> bytes:
    return data
