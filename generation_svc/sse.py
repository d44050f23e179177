"""Server-sent events, parsed from bytes as they come. Pure.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end in CRLF, LF or CR, a comment begins with a
colon, several `data` lines make one event, an empty line ends it. Event names and ids are passed over: the OpenAI dialect puts
everything into the data.
"""

import re
from collections.abc import Iterator
from typing import Final

from penstock.errors import BackendUnavailable

EVENT_BYTES_MAX: Final = 16 * 2**20
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class SseParser:
    """Feed it chunks, however they are cut; it gives the data of each event that is complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The events that this chunk completes. Raises BackendUnavailable for an event over EVENT_BYTES_MAX."""
        text = self._rest + chunk
        # A CR at the very end may be half of a CRLF: it waits for the next chunk.
        end = len(text) - text.endswith(b"\r")
        start = 0
        for found in _LINE_END.finditer(text, 0, end):
            line, start = text[start : found.start()], found.end()
            if (event := self._take(line)) is not None:
                yield event
        self._rest = text[start:]
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            message = f"the endpoint sent an event of more than {EVENT_BYTES_MAX} bytes"
            raise BackendUnavailable(message)

    def _take(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._data.append(value)
            self._size += len(value)
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data.clear()
            self._size = 0
            return event
        return None
