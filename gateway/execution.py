"""One run of a flow: the state that its nodes share with no other run, and the events that tell of it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gateway.flow_model import UNBOUNDED, Bounds
from gateway.values import Document
from penstock.errors import BudgetExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """A node's inputs are ready and it runs."""

    node_id: str
    node_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """A node has given its outputs, which are told to who asked for them."""

    node_id: str
    node_type: str
    duration_s: float
    outputs: Mapping[str, Any] | None = None


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
class ToolCall:
    """A call of one of the caller's tools that a model asks for. `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run has taken, all its loops, maps and sub-flows together."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    model_calls: int = 0
    retrievals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run came to: the last event of a stream, the answer of a unary call.

    `sources` are in the order of the retrieving nodes; `trace_id` is 32 hexadecimal digits; `finish_reason` is that of the last
    answer of a model, empty where none was asked; `bounded_nodes` are those that ended because they reached a bound of theirs.
    """

    outputs: Mapping[str, Any]
    sources: tuple[SourcesFound, ...]
    spent: Spent
    content_hash: str
    trace_id: str
    session: str = ""
    finish_reason: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    bounded_nodes: tuple[str, ...] = ()


Event = NodeStarted | NodeFinished | SourcesFound | Token | RunResult
Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """A turn of a conversation. `role` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may ask for. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a caller says of a run beside its inputs (flow.proto, RunFlowRequest).

    `messages` None: history is that of the session. `sampling` are parameters of generate nodes by name, checked.
    `node_outputs`: events tell what each node gave.
    """

    session: str = ""
    messages: tuple[ChatMessage, ...] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    node_outputs: bool = False


NOTHING_SAID: Final = Call()


class Meter:
    """Counts what a run takes and stops it where it would take more than its bounds.

    One for a run, its bodies and its sub-flows. Raises BudgetExceeded, at the latest when the next thing is asked for.
    """

    __slots__ = ("_bounds", "cached_tokens", "input_tokens", "model_calls", "output_tokens", "retrievals")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.input_tokens = self.output_tokens = self.cached_tokens = self.model_calls = self.retrievals = 0

    def ask_model(self, calls: int = 1) -> None:
        """Before each call of a model."""
        bounds = self._bounds
        if bounds.tokens is not None and self.input_tokens + self.output_tokens >= bounds.tokens:
            raise _exceeded("tokens", bounds.tokens)
        if bounds.model_calls is not None and self.model_calls + calls > bounds.model_calls:
            raise _exceeded("model_calls", bounds.model_calls)
        self.model_calls += calls

    def answered(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> None:
        """After each call of a model."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cached_tokens += cached_tokens

    def retrieve(self, searches: int = 1) -> None:
        """Before each search."""
        if self._bounds.retrievals is not None and self.retrievals + searches > self._bounds.retrievals:
            raise _exceeded("retrievals", self._bounds.retrievals)
        self.retrievals += searches

    def spent(self) -> Spent:
        """What has been taken so far."""
        return Spent(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            model_calls=self.model_calls,
            retrievals=self.retrievals,
        )


class Run:
    """What the nodes of one run write to and read from. `emit` is None when nobody listens (a unary call).

    `remembered` are the messages that are added to the session once the run has ended well. A body or a sub-flow runs in a
    `child` run, which has inputs and outputs of its own and shares the rest.
    """

    __slots__ = (
        "bounded_nodes", "call", "depth", "emit", "finish_reason", "inputs", "meter", "outputs", "prefix", "recording",
        "remembered", "root", "sources", "tool_calls",
    )  # fmt: skip

    def __init__(
        self, inputs: Mapping[str, Any], emit: Emit | None = None, *, call: Call = NOTHING_SAID, bounds: Bounds = UNBOUNDED
    ) -> None:
        self.inputs = inputs
        self.emit = emit
        self.call = call
        self.meter = Meter(bounds)
        self.outputs: dict[str, Any] = {}
        self.sources: dict[str, tuple[Document, ...]] = {}
        self.remembered: list[ChatMessage] = []
        self.tool_calls: list[ToolCall] = []
        self.bounded_nodes: list[str] = []
        self.finish_reason = ""
        self.recording = False  # Whether the run's trace is sampled: nodes of one that is not make no spans.
        self.prefix = ""
        self.depth = 0
        self.root = self

    def child(self, node_id: str, inputs: Mapping[str, Any]) -> "Run":
        """A run inside this one, of the body or sub-flow of `node_id`; its nodes are told as "node_id/their id"."""
        child = Run(inputs, self.emit and _prefixed(self.emit, node_id), call=self.call)
        root = self.root
        child.meter, child.sources, child.remembered = root.meter, root.sources, root.remembered
        child.tool_calls, child.bounded_nodes, child.recording = root.tool_calls, root.bounded_nodes, root.recording
        child.prefix, child.depth, child.root = f"{self.prefix}{node_id}/", self.depth + 1, root
        return child

    def found(self, node_id: str, documents: tuple[Document, ...]) -> None:
        """Adds what a retrieving node found to the run's sources, each passage once."""
        place = self.prefix + node_id
        before = self.sources.get(place)
        if before:
            known = {each.chunk_id for each in before}
            documents = before + tuple(each for each in documents if each.chunk_id not in known)
        self.sources[place] = documents

    def bounded(self, node_id: str) -> None:
        """Notes that a node ended because it reached its bound."""
        place = self.prefix + node_id
        if place not in self.bounded_nodes:
            self.bounded_nodes.append(place)


def _prefixed(emit: Emit, node_id: str) -> Emit:
    async def emit_with_place(event: Event) -> None:
        assert not isinstance(event, RunResult)  # noqa: S101  # Only the outermost run has a result.
        await emit(replace(event, node_id=f"{node_id}/{event.node_id}"))

    return emit_with_place


def _exceeded(what: str, bound: int) -> BudgetExceeded:
    return BudgetExceeded(
        f"the run would take more than its budget of {bound} {what.replace('_', ' ')}; raise budget.{what} of the flow, up to "
        "the gateway's own bound, or lower the bounds of its loops and maps",
        metadata={"budget": what, "limit": str(bound)},
    )


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
