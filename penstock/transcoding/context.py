"""What a servicer may know of a call that came over HTTP."""

import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Final

from penstock.errors import MalformedRequest

TIMEOUT_HEADER: Final = "x-penstock-timeout-s"
"""Seconds that the caller gives the call, such as "2.5". gRPC's own header is understood too."""

_GRPC_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final[Mapping[str, float]] = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class HttpContext:
    """The call's headers and its deadline, counted from when the request's head was read."""

    __slots__ = ("_deadline", "_headers")

    def __init__(self, headers: Mapping[str, str], *, deadline_s: float) -> None:
        self._headers = headers
        self._deadline = time.monotonic() + deadline_s

    def metadata(self) -> Mapping[str, str]:
        """The request's headers, names in lower case."""
        return self._headers

    def time_remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self._deadline - time.monotonic())


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """ASGI's headers by their names; those that come more than once are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def timeout_s(headers: Mapping[str, str], limit_s: float) -> float:
    """The time that the caller gives the call, at most `limit_s`, which also stands where none is given.

    Raises MalformedRequest.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is not None:
        return min(_seconds(text), limit_s)
    text = headers.get("grpc-timeout")
    if text is None:
        return limit_s
    match = _GRPC_TIMEOUT.fullmatch(text)
    if match is None:
        raise MalformedRequest(f"header grpc-timeout: {text[:40]!r} is not a number and a unit such as 500m")
    return min(int(match[1]) * _UNIT_S[match[2]], limit_s)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise MalformedRequest(f"header {TIMEOUT_HEADER}: {text[:40]!r} is not a number of seconds above 0")
    return seconds
