"""What the openvino engine and its worker process say to each other: JSON lines over a socket pair.

    engine -> worker    Open, once; then Ask and Cancel
    worker -> engine    Opened or Failed, once; then a News after each step that made any progress

A line is a JSON array whose first element names the type. Both ends are ours and of one version.
"""

import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from generation_svc.engine import Timings

LINE_BYTES_MAX: Final = 256 * 2**20
"""Above any message that a service accepts."""
_WAIT_MS: Final = 1000
"""After which a waiting worker looks after its own clocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Which model to load and how. `context_window` 0 is the model's own; `threads` 0 leaves it to OpenVINO."""

    model_path: str
    device: str
    context_window: int
    max_tokens_default: int
    sequences_max: int
    batched_tokens_max: int
    cache_gb: int
    prefix_caching: bool
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The model is loaded. `context_window` is in tokens; `takes_forms` says whether an answer can be held to a form."""

    context_window: int
    precision: str
    takes_forms: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `messages` are {role, content}; `sampling` is engine.Sampling's fields; `form` as OpenVINO names it, and its
    text: ("regex", "[a-z]+").
    """

    id: int
    messages: list[dict[str, str]]
    prompt: str
    sampling: dict[str, Any]
    streamed: bool
    form: tuple[str, str] | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Nobody waits for this request any more."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A PenstockError: of the opening, or of one request."""

    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an answer ended."""

    finish_reason: str
    matched_stop: str
    input_tokens: int
    output_tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one request has come to: more text, and at last `ended` or `failed`.

    `logprobs` are (number, text, logarithm of the probability) of each new token, where they were asked for.
    """

    id: int
    text: str = ""
    token_count: int = 0
    logprobs: list[tuple[int, str, float]] = field(default_factory=list)
    ended: Ended | None = None
    failed: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a step has brought. `cache_used` is the share of the memory for keys and values that is in use."""

    steps: list[Progress]
    cache_used: float


Said = Open | Opened | Ask | Cancel | Failed
_TYPES: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in (Open, Opened, Ask, Cancel, Failed)}


def encode(said: Said) -> bytes:
    return orjson.dumps([type(said).__name__, said]) + b"\n"


def decode(line: bytes) -> Said:
    name, fields = orjson.loads(line)
    if fields.get("form"):
        fields["form"] = tuple(fields["form"])
    said: Said = _TYPES[name](**fields)
    return said


def encode_news(news: News) -> bytes:
    return orjson.dumps(news) + b"\n"


def decode_news(line: bytes) -> News:
    news = orjson.loads(line)
    return News(steps=list(_progress(news["steps"])), cache_used=news["cache_used"])


def _progress(steps: list[dict[str, Any]]) -> Iterator[Progress]:
    for fields in steps:
        if ended := fields["ended"]:
            fields["ended"] = Ended(**{**ended, "timings": Timings(**ended["timings"])})
        if failed := fields["failed"]:
            fields["failed"] = Failed(**failed)
        yield Progress(**fields)


class WorkerSocket:
    """The worker's end: blocking, and owned by its main thread. `wake` alone may be called by another."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._woken = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll.register(self._woken, select.POLLIN)
        self._rest = b""

    def lines(self, *, wait: bool) -> list[bytes]:
        """Whole lines that have come; waits for some or for `wake`, without using the processor, if `wait`.

        Raises EOFError at the end.
        """
        ready = [descriptor for descriptor, _ in self._poll.poll(_WAIT_MS if wait else 0)]
        if self._woken in ready:
            os.eventfd_read(self._woken)
        if self._end.fileno() not in ready:
            return []
        data = self._end.recv(2**20)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def wake(self) -> None:
        """Ends a wait of the main thread."""
        os.eventfd_write(self._woken, 1)

    def send(self, line: bytes) -> None:
        """Waits while the other end does not read, which bounds what is under way."""
        self._end.sendall(line)
