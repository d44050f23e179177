"""What the clients share: a channel that opens with the first call, a deadline for every call, errors as ours, pages, batches.

An async client belongs to the event loop of its first call, as grpc.aio's channels do.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator
from contextlib import aclosing
from functools import cached_property
from typing import Any, ClassVar, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry import trace

from penstock.channel import open_channel, rpc_errors
from penstock.errors import BackendUnavailable
from penstock.wire import from_status

TIMEOUT_S: Final = 30.0
"""Deadline of a call that reads or changes one thing."""
LONG_TIMEOUT_S: Final = 300.0
"""Deadline of a call that computes, and the most that a service allows unless its settings say otherwise."""
MESSAGE_BYTES_MAX: Final = 64 * 2**20
BATCH_BYTES_MAX: Final = 4 * 2**20
"""A quarter of the request size that services accept by default."""

MessageT = TypeVar("MessageT", bound=Message)


class Client:
    """Base of the clients: `async with` closes the channel, and so does `aclose()`.

    `target` is gRPC's, such as "127.0.0.1:50050" or "dns:///penstock-gateway:50050". Without a `tracer_provider` it is
    OpenTelemetry's global one, which records nothing until a program sets it up. `api_key` is shown to a service that asks for
    one; `principals`, such as "user:ann", are on whose behalf calls are made, and `tenant` on whose account, where the service
    lets the caller say so.
    """

    service: ClassVar[str]
    """The name under which errors speak of the other side."""

    def __init__(
        self,
        target: str,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        api_key: str = "",
        principals: Collection[str] = (),
        tenant: str = "",
    ) -> None:
        self._target = target
        self._tracer_provider = tracer_provider
        self._message_bytes_max = message_bytes_max
        self._api_key = api_key
        self._principals = frozenset(principals)
        self._tenant = tenant

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        if "_channel" in self.__dict__:
            await self._channel.close(None)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        provider = self._tracer_provider or trace.get_tracer_provider()
        return open_channel(
            self._target,
            tracer_provider=provider,
            message_bytes_max=self._message_bytes_max,
            api_key=self._api_key,
            principals=lambda: self._principals,
            tenant=lambda: self._tenant,
        )

    async def _call(self, method: Any, request: Message, timeout_s: float) -> Any:
        with rpc_errors(self.service):
            return await method(request, timeout=timeout_s)

    async def _stream(self, method: Any, request: Message, timeout_s: float) -> AsyncGenerator[Any, None]:
        """The messages of a stream whose oneof has an `error`, which is raised. Closing it cancels the call."""
        call = method(request, timeout=timeout_s)
        try:
            with rpc_errors(self.service):
                async for message in call:
                    if message.HasField("error"):
                        await call.code()  # The same failure as a status: the call shall end with it and not as cancelled.
                        raise from_status(message.error).located(service=self.service)
                    yield message
        finally:
            call.cancel()

    async def _send(self, method: Any, messages: AsyncIterator[Message], timeout_s: float) -> Any:
        """The answer to a stream of messages, which are asked for as fast as the service takes them.

        What `messages` raises ends the call and is raised here; gRPC itself would only say that it was cancelled.
        """
        failures: list[Exception] = []
        try:
            with rpc_errors(self.service):
                return await method(_watched(messages, failures), timeout=timeout_s)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            if failures:
                raise failures[0] from None
            # gRPC says so too of a stream that ended before a connection could be made.
            raise BackendUnavailable(f"the {self.service} service cannot be reached", retry_after_s=1.0) from None

    async def _pages(self, method: Any, request: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Every page of a listing, each read when it is asked for, with `timeout_s` of its own."""
        while True:
            page = await self._call(method, request, timeout_s)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


async def _watched(messages: AsyncIterator[Message], failures: list[Exception]) -> AsyncIterator[Message]:
    try:
        async for message in messages:
            yield message
    except Exception as error:
        failures.append(error)
        raise


async def items_of(pages: AsyncGenerator[Any, None], field: str) -> AsyncGenerator[Any, None]:
    """The items of all pages, one after the other."""
    async with aclosing(pages):
        async for page in pages:
            for item in getattr(page, field):
                yield item


def batches(messages: Iterable[MessageT], *, count_max: int) -> Iterator[list[MessageT]]:
    """Groups of at most `count_max` messages and, unless one message alone is more, at most BATCH_BYTES_MAX bytes."""
    batch: list[MessageT] = []
    bytes_in_batch = 0
    for message in messages:
        size = message.ByteSize()
        if batch and (len(batch) == count_max or bytes_in_batch + size > BATCH_BYTES_MAX):
            yield batch
            batch, bytes_in_batch = [], 0
        batch.append(message)
        bytes_in_batch += size
    if batch:
        yield batch


def resource_name(kind: str, name: str) -> str:
    """A resource's full name: "rag" and "flows/rag" are both "flows/rag"."""
    return name if name.startswith(f"{kind}/") else f"{kind}/{name}"


def short_name(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]
