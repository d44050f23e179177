"""What the openvino engine and its worker process say to each other: JSON lines over a socket pair.

    engine -> worker    Open, once; then Ask and Cancel
    worker -> engine    Opened or Failed, once; then a list of Progress after each step that made any

A line is a JSON array whose first element names the type. Both ends are ours and of one version.
"""

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from generation_svc.engine import Timings

LINE_BYTES_MAX: Final = 256 * 2**20
"""Above any message that a service accepts."""


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
    """The model is loaded. `context_window` is in tokens."""

    context_window: int
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `messages` are {role, content}; `sampling` is engine.Sampling's fields."""

    id: int
    messages: list[dict[str, str]]
    prompt: str
    sampling: dict[str, Any]
    streamed: bool


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
    """What one request has come to: more text, and at last `ended` or `failed`."""

    id: int
    text: str = ""
    token_count: int = 0
    ended: Ended | None = None
    failed: Failed | None = None


Said = Open | Opened | Ask | Cancel | Failed
_TYPES: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in (Open, Opened, Ask, Cancel, Failed)}


def encode(said: Said) -> bytes:
    return orjson.dumps([type(said).__name__, said]) + b"\n"


def decode(line: bytes) -> Said:
    name, fields = orjson.loads(line)
    said: Said = _TYPES[name](**fields)
    return said


def encode_progress(steps: list[Progress]) -> bytes:
    return orjson.dumps(steps) + b"\n"


def decode_progress(line: bytes) -> Iterator[Progress]:
    for fields in orjson.loads(line):
        if ended := fields["ended"]:
            fields["ended"] = Ended(**{**ended, "timings": Timings(**ended["timings"])})
        if failed := fields["failed"]:
            fields["failed"] = Failed(**failed)
        yield Progress(**fields)


class WorkerSocket:
    """The worker's end: blocking, and owned by its one thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._rest = b""

    def lines(self, *, wait: bool) -> list[bytes]:
        """Whole lines that have come; waits for one, without using the processor, if `wait`. Raises EOFError at the end."""
        if not self._poll.poll(None if wait else 0):
            return []
        data = self._end.recv(2**20)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def send(self, line: bytes) -> None:
        """Waits while the other end does not read, which bounds what is under way."""
        self._end.sendall(line)
