"""What goes over a link: frames. Pure.

    frame = length of the payload (4 bytes) | number of the call (4) | kind (1) | payload        little-endian

    CALL     client   length of the head (4 bytes), the head as JSON [method, seconds, metadata], the request's message
    ANSWER   server   the answer of a unary call, and its end
    MESSAGE  server   one message of a stream
    END      server   a stream has ended well
    FAILURE  server   the call has failed: a google.rpc.Status
    READ     client   how many more messages of a stream have been read (4 bytes)
    CANCEL   client   nobody waits for the call any more
    LEAVING  server   no new calls, please; those that have begun go on

A stream has at most WINDOW messages under way that have not been read, so that a slow reader holds back its own stream and no
other one on the connection.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from penstock.errors import MalformedRequest

CALL: Final = 1
ANSWER: Final = 2
MESSAGE: Final = 3
END: Final = 4
FAILURE: Final = 5
READ: Final = 6
CANCEL: Final = 7
LEAVING: Final = 8

WINDOW: Final = 64
READ_EVERY: Final = 32
"""Messages after which a client says that it has read them."""
HEAD_BYTES_MAX: Final = 64 * 1024
"""Of a call: as much as an HTTP request's head may have."""
CALLS_MAX: Final = 4096
"""Calls that have begun and not ended, on one link. A service's own limit is lower."""

PROTOCOL: Final = "penstock-link-1"
"""The name in the HTTP upgrade."""
FIND: Final = "/penstock.Link/Find"
"""The gRPC method that says, as decimal digits, on which port links are taken; nothing where they are not."""

_FRAME: Final = struct.Struct("<IIB")
_NUMBER: Final = struct.Struct("<I")


def frame(number: int, kind: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _FRAME.pack(len(payload), number, kind) + payload


def call_frame(number: int, method: str, seconds: float, metadata: Mapping[str, str], message: bytes) -> bytes:
    """The frame that begins a call."""
    head = orjson.dumps([method, seconds, metadata])
    size = _NUMBER.size + len(head) + len(message)
    return b"".join((_FRAME.pack(size, number, CALL), _NUMBER.pack(len(head)), head, message))


def read_call(payload: bytes) -> tuple[str, float, dict[str, str], bytes]:
    """Method, seconds, metadata and message of a call. Raises MalformedRequest."""
    try:
        (size,) = _NUMBER.unpack_from(payload)
        end = _NUMBER.size + size
        method, seconds, metadata = orjson.loads(payload[_NUMBER.size : end])
        well = isinstance(method, str) and isinstance(seconds, int | float) and _is_metadata(metadata)
    except (struct.error, ValueError, TypeError) as error:
        raise MalformedRequest("the head of the call is not one that this version of a link knows") from error
    if not well or size > HEAD_BYTES_MAX:
        raise MalformedRequest("the head of the call is not one that this version of a link knows")
    return method, float(seconds), metadata, payload[end:]


def _is_metadata(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def number_payload(count: int) -> bytes:
    """The payload of READ."""
    return _NUMBER.pack(count)


def read_number(payload: bytes) -> int:
    """What it says. Raises MalformedRequest."""
    if len(payload) != _NUMBER.size:
        raise MalformedRequest("a frame of a link has the wrong length")
    (count,) = _NUMBER.unpack(payload)
    return int(count)


class FrameReader:
    """Cuts a stream of bytes into frames, however it comes."""

    __slots__ = ("_payload_max", "_rest", "_wanted")

    def __init__(self, payload_max: int) -> None:
        self._payload_max = payload_max
        self._rest = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(number, kind, payload) of each frame that is complete. Raises MalformedRequest for one that is too long."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, size = 0, len(data)
        while size - at >= _FRAME.size:
            length, number, kind = _FRAME.unpack_from(data, at)
            if length > self._payload_max:
                raise MalformedRequest(f"a frame of {length} bytes; a link takes at most {self._payload_max}")
            end = at + _FRAME.size + length
            if end > size:
                self._wanted = end - at
                break
            yield number, kind, data[at + _FRAME.size : end]
            at = end
        else:
            self._wanted = _FRAME.size
        if at < size:
            self._rest += data[at:]
