"""The process in which files are read: `python -m retrieval_svc.ingest.reading_process MEMORY_BYTES`, started by extraction.py.

On stdin comes a request after the other: a line of JSON (`size`, `kind`, `charset`, `mark_headings`, `text_bytes_max`,
`timeout_s`) and `size` bytes; on stdout goes the answer of each: a line of JSON (`size`, `title`, or `error`) and `size` bytes
of UTF-8. It leaves at the end of its input, when memory ran out, and by itself when one file takes too long: its starter kills
it then, and may itself be dead.
"""

import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO, Final

from retrieval_svc.ingest.reading_limits import UnreadableError

_NICENESS: Final = 5
"""Searches go before: whoever ingests waits anyway."""
_TITLE_MAX: Final = 500
_GRACE_S: Final = 5.0
_EXHAUSTED: Final = "it needs more memory than is given to the reading of one document; split it"
_CONTROLS: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127, *range(0xD800, 0xE000), 0xFFFE, 0xFFFF])
"""What no text means and not every database stores: controls but for tab and new line, halves of surrogate pairs."""


def main() -> None:
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # What a library prints must not stand among the answers.
    serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers until the input ends or memory has run out, after which nothing here can be relied on."""
    while header := requests.readline():
        request = json.loads(header)
        signal.setitimer(signal.ITIMER_REAL, request["timeout_s"] + _GRACE_S)
        exhausted = _answer(request, requests.read(request["size"]), replies)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        if exhausted:
            return


def _answer(request: dict[str, Any], content: bytes, replies: BinaryIO) -> bool:
    """Whether memory ran out."""
    text, title, error = "", "", ""
    try:
        text, title = _read(request, content)
    except UnreadableError as unreadable:
        error = str(unreadable).translate(_CONTROLS)
    except (MemoryError, RecursionError):
        error = _EXHAUSTED  # Told below: only out here is the memory free again that the failed frames held.
    if error:
        _send(replies, {"error": error, "exhausted": error == _EXHAUSTED})
    else:
        _send(replies, {"title": title[:_TITLE_MAX]}, text)
    return error == _EXHAUSTED


def _read(request: dict[str, Any], content: bytes) -> tuple[str, str]:
    text, title = _parsed(request, content)
    encoded = text.translate(_CONTROLS).encode()
    if len(encoded) > request["text_bytes_max"]:
        message = f"its text is {len(encoded)} bytes, more than the {request['text_bytes_max']} of one document; split it"
        raise UnreadableError(message)
    return encoded.decode(), title.translate(_CONTROLS)


def _parsed(request: dict[str, Any], content: bytes) -> tuple[str, str]:
    if request["kind"] == "pdf":
        from retrieval_svc.ingest.pdf_text import pdf_text  # noqa: PLC0415  # Either library is loaded when it is needed.

        return pdf_text(content, text_chars_max=request["text_bytes_max"])
    from retrieval_svc.ingest.html_text import decode_html, html_text  # noqa: PLC0415

    return html_text(decode_html(content, request["charset"]), mark_headings=request["mark_headings"])


def _send(replies: BinaryIO, header: dict[str, Any], text: str = "") -> None:
    encoded = text.encode()
    replies.write(json.dumps({"size": len(encoded)} | header).encode() + b"\n" + encoded)
    replies.flush()


if __name__ == "__main__":
    main()
