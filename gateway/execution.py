"""One run of a flow: the state that its nodes share with no other run, and the events that tell of it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.values import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """A node's inputs are ready and it runs."""

    node_id: str
    node_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """A node has given its outputs."""

    node_id: str
    node_type: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesFound:
    """A retrieving node has its passages."""

    node_id: str
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A generating node has more text."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run came to: the last event of a stream, the answer of a unary call.

    `sources` are in the order of the retrieving nodes; token counts are sums over all model calls; `trace_id` is 32
    hexadecimal digits.
    """

    outputs: Mapping[str, Any]
    sources: tuple[SourcesFound, ...]
    input_tokens: int
    output_tokens: int
    content_hash: str
    trace_id: str


Event = NodeStarted | NodeFinished | SourcesFound | Token | RunResult
Emit = Callable[[Event], Awaitable[None]]


class Run:
    """What the nodes of one run write to and read from. `emit` is None when nobody listens (a unary call)."""

    __slots__ = ("emit", "input_tokens", "inputs", "output_tokens", "outputs", "recording", "sources")

    def __init__(self, inputs: Mapping[str, Any], emit: Emit | None = None) -> None:
        self.inputs = inputs
        self.emit = emit
        self.outputs: dict[str, Any] = {}
        self.sources: dict[str, tuple[Document, ...]] = {}
        self.input_tokens = 0
        self.output_tokens = 0
        self.recording = False  # Whether the run's trace is sampled: nodes of one that is not make no spans.


class EventBuffer:
    """A bounded queue with an end: nodes put, one reader gets. A full one makes the nodes wait, and so the model's stream.

    asyncio.Queue cannot be closed before Python 3.13, and a reader must not wait for a run that has died.
    """

    def __init__(self, events_max: int) -> None:
        self._events: deque[Event] = deque()
        self._events_max = events_max
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()

    async def put(self, event: Event) -> None:
        """Waits for room."""
        while len(self._events) >= self._events_max and not self._closed:
            writer = asyncio.get_running_loop().create_future()
            self._writers.append(writer)
            try:
                await writer
            except asyncio.CancelledError:
                if writer.done() and not writer.cancelled():
                    self._wake_writer()  # The room that was meant for this one goes to the next.
                raise
        self._events.append(event)
        _wake(self._reader)

    async def get(self) -> Event | None:
        """The next event; None after the last, once it is closed."""
        while not self._events:
            if self._closed:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        self._wake_writer()
        return event

    def close(self) -> None:
        """Nothing more comes. What is inside can still be got."""
        self._closed = True
        _wake(self._reader)
        for writer in self._writers:
            _wake(writer)

    def _wake_writer(self) -> None:
        while self._writers:
            writer = self._writers.popleft()
            if not writer.done():  # Whoever was cancelled while waiting is passed over.
                writer.set_result(None)
                return


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
