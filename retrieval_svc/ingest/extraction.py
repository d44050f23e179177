"""The text of a document's file, whatever its type.

Text and Markdown are decoded here. HTML and PDF are read in a process of their own with limits of time and memory, which may
die of what it reads: the file is refused, the process replaced, and nobody else notices.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.errors import InvalidArgument, UnreadableDocument
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.ingest.text_codecs import text_codec
from retrieval_svc.values import Document

PLAIN: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
HTML: Final = "text/html"
PDF: Final = "application/pdf"
CONTENT_TYPES: Final = (PLAIN, MARKDOWN, HTML, PDF)

_KINDS: Final = {HTML: "html", PDF: "pdf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What a document says, and the title that its file has."""

    text: str
    title: str = ""


def media_type(content_type: str) -> tuple[str, str]:
    """Type and charset of "text/html; charset=utf-8". Empty is plain text. Raises InvalidArgument for what is not read."""
    name, *parameters = (part.strip() for part in content_type.lower().split(";"))
    if name and name not in CONTENT_TYPES:
        message = f"content_type is one of {', '.join(CONTENT_TYPES)}, or empty for plain text; not {content_type[:80]!r}"
        raise InvalidArgument(message, metadata={"field": "content_type"})
    charsets = (part.removeprefix("charset=").strip("\"' ") for part in parameters if part.startswith("charset="))
    return name or PLAIN, next(charsets, "")


class Extractor:
    """Reads documents, `processes_max` of those that need a process at a time."""

    def __init__(self, limits: ReadingLimits, *, processes_max: int = 1) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(processes_max)
        self._idle: list[_Reader] = []

    async def extract(self, document: Document, *, mark_headings: bool = False) -> Extracted:
        """The document's text; HTML's headings as Markdown's on request. Raises UnreadableDocument, InvalidArgument."""
        kind, charset = media_type(document.content_type)
        if kind in _KINDS:
            return await self._read(document, _KINDS[kind], charset, mark_headings=mark_headings)
        return Extracted(text=document.text or _decoded(document, charset))

    async def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            await self._idle.pop().end()

    async def _read(self, document: Document, kind: str, charset: str, *, mark_headings: bool) -> Extracted:
        if kind == "pdf" and not document.content:
            message = f"document {document.id!r} is a PDF by its content_type: give its bytes as content, not as text"
            raise InvalidArgument(message, metadata={"field": "content"})
        content = document.content or document.text.encode()
        header = {
            "kind": kind,
            "size": len(content),
            "charset": charset if document.content else "utf-8",
            "mark_headings": mark_headings,
            "text_bytes_max": self._limits.text_bytes_max,
            "timeout_s": self._limits.timeout_s,
        }
        async with self._places:
            reply = await self._exchanged(header, content)
        if "error" in reply:
            message = f"document {document.id!r} cannot be read: {reply['error']}"
            raise UnreadableDocument(message, metadata={"document_id": document.id, "content_type": document.content_type})
        return Extracted(text=reply["text"], title=reply["title"])

    async def _exchanged(self, header: dict[str, Any], content: bytes) -> dict[str, Any]:
        """The answer of a process. One that has read other files before is not a fair judge of this: a new one tries again."""
        reader = self._idle.pop() if self._idle else await _Reader.start(self._limits)
        reply = await self._asked(reader, header, content)
        if reply.get("exhausted") and reader.served > 1:
            reply = await self._asked(await _Reader.start(self._limits), header, content)
        return reply

    async def _asked(self, reader: "_Reader", header: dict[str, Any], content: bytes) -> dict[str, Any]:
        reply: dict[str, Any] = {"exhausted": True}
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                reply = await reader.ask(header, content)
        except TimeoutError:
            return {"error": f"its text was not found within {self._limits.timeout_s:g} s; split it, or make it simpler"}
        except (OSError, EOFError):
            return {"error": "it broke the process that reads it; repair it, or split it", "exhausted": True}
        finally:
            if reply.get("exhausted"):
                await reader.end()
            else:
                self._idle.append(reader)
        return reply


@dataclass(slots=True, kw_only=True)
class _Reader:
    """A reading process. Where an exchange was broken off, the next would read the rest of it: the process has to be ended."""

    process: Process
    served: int = field(default=0)

    @classmethod
    async def start(cls, limits: ReadingLimits) -> "_Reader":
        # A session of its own: Ctrl-C in a terminal is for the service, which lets its writes finish.
        command = (sys.executable, "-m", "retrieval_svc.ingest.reading_process", str(limits.memory_bytes))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        return cls(process=process)

    async def ask(self, header: dict[str, Any], content: bytes) -> dict[str, Any]:
        """The answer. Raises OSError or EOFError where the process dies."""
        self.served += 1
        requests, replies = self.process.stdin, self.process.stdout
        if requests is None or replies is None:
            raise EOFError
        requests.write(json.dumps(header).encode() + b"\n")
        requests.write(content)
        await requests.drain()
        reply: dict[str, Any] = json.loads(await replies.readuntil())
        return reply | {"text": (await replies.readexactly(reply["size"])).decode()}

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def _decoded(document: Document, charset: str) -> str:
    codec = text_codec(charset) if charset else "utf-8-sig"
    if not codec:
        message = f"document {document.id!r} names a charset {charset[:40]!r} that is not known; convert it to UTF-8"
        raise UnreadableDocument(message, metadata={"document_id": document.id})
    try:
        return document.content.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        message = (
            f"document {document.id!r} is not {codec.removesuffix('-sig').upper()}: byte {error.start} "
            f"(0x{document.content[error.start]:02x}) does not fit; convert it, or say its charset in content_type"
        )
        metadata = {"document_id": document.id, "byte_offset": str(error.start)}
        raise UnreadableDocument(message, metadata=metadata) from error
