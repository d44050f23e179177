"""Documents to chunks: extract -> split. What a document depends on is in its content hash, so that it is prepared once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

import orjson

from penstock.errors import EmptyText, InvalidArgument, PenstockError
from retrieval_svc import checks
from retrieval_svc.ingest.chunking import Tokenise
from retrieval_svc.ingest.extraction import HTML, MARKDOWN, Extracted, Extractor, media_type
from retrieval_svc.ingest.splitting import Piece, Splitter, Splitting, split
from retrieval_svc.values import Chunk, Document, DocumentRecord

_VERSION: Final = "1"
"""Part of every content hash: another one when the same document would become other chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How documents are split, with nothing left open. `fingerprint`: of the model that will embed the pieces."""

    splitter: Splitter
    tokens_max: int
    overlap_tokens: int
    fingerprint: str

    def splitter_for(self, content_type: str) -> Splitter:
        """The splitter of a document of that type."""
        if self.splitter is not Splitter.BY_TYPE:
            return self.splitter
        return Splitter.MARKDOWN if media_type(content_type)[0] == MARKDOWN else Splitter.SENTENCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A document that can be stored."""

    record: DocumentRecord
    chunks: tuple[Chunk, ...]


def cutting(splitting: Splitting, *, window_tokens: int, fingerprint: str, defaults: Splitting) -> Cutting:
    """What a caller wants and what the service is set to, within the model's window. Raises InvalidArgument."""
    longest = splitting.chunk_tokens_max
    if longest is None:
        longest = defaults.chunk_tokens_max or window_tokens
    overlap = splitting.overlap_tokens
    if overlap is None:
        overlap = min(defaults.overlap_tokens or 0, longest // 2)
    checks.splitting(longest, overlap)
    tokens_max = min(longest, window_tokens)
    overlap = min(overlap, tokens_max // 2)
    return Cutting(splitter=splitting.splitter, tokens_max=tokens_max, overlap_tokens=overlap, fingerprint=fingerprint)


def content_hash(document: Document, how: Cutting) -> str:
    """A hash over everything that the document's chunks depend on, of 32 hexadecimal digits."""
    metadata = orjson.loads(document.metadata_json) if document.metadata_json else {}
    parts = (
        _VERSION.encode(),
        document.text.encode(),
        document.content,
        document.content_type.encode(),
        orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS),  # A Struct is a map: its keys come in any order.
        orjson.dumps(sorted(document.allowed_principals)),
        orjson.dumps([how.splitter.value, how.tokens_max, how.overlap_tokens, how.fingerprint]),
    )
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class Preparation:
    """Makes chunks of documents. A document that cannot be read does not fail the others."""

    def __init__(self, extractor: Extractor, *, text_bytes_max: int) -> None:
        self._extractor = extractor
        self._text_bytes_max = text_bytes_max

    async def prepare(
        self, documents: Sequence[tuple[Document, str]], how: Cutting, tokenise: Tokenise
    ) -> list[Prepared | PenstockError]:
        """For each document, given with its content hash, its chunks or what is wrong with it."""
        texts = await asyncio.gather(*(self._extract(document, how) for document, _ in documents))
        return await asyncio.to_thread(self._split_all, documents, texts, how, tokenise)

    async def _extract(self, document: Document, how: Cutting) -> Extracted | PenstockError:
        try:
            mark_headings = how.splitter is Splitter.MARKDOWN and media_type(document.content_type)[0] == HTML
            extracted = await self._extractor.extract(document, mark_headings=mark_headings)
            checks.text(extracted.text, f"document {document.id!r}", self._text_bytes_max)
        except InvalidArgument as error:
            return error
        return extracted

    def _split_all(
        self,
        documents: Sequence[tuple[Document, str]],
        texts: Sequence[Extracted | PenstockError],
        how: Cutting,
        tokenise: Tokenise,
    ) -> list[Prepared | PenstockError]:
        return [
            text if isinstance(text, PenstockError) else _split(document, hashed, text, how, tokenise)
            for (document, hashed), text in zip(documents, texts, strict=True)
        ]


def _split(document: Document, hashed: str, text: Extracted, how: Cutting, tokenise: Tokenise) -> Prepared | PenstockError:
    splitter = how.splitter_for(document.content_type)
    pieces = split(text.text, tokenise, splitter, tokens_max=how.tokens_max, overlap_tokens=how.overlap_tokens)
    if not pieces:
        return EmptyText(f"document {document.id!r} has nothing in it but marks; give a text")
    if len(pieces) > checks.CHUNKS_MAX:
        message = (
            f"document {document.id!r} is {len(pieces)} chunks, and at most {checks.CHUNKS_MAX} are taken of one; "
            "split it, or ask for longer chunks"
        )
        return InvalidArgument(message, metadata={"limit": str(checks.CHUNKS_MAX)})
    record = DocumentRecord(id=document.id, content_hash=hashed, chunk_count=len(pieces))
    return Prepared(record=record, chunks=tuple(_chunks(document, text.title, pieces)))


def _chunks(document: Document, title: str, pieces: Sequence[Piece]) -> list[Chunk]:
    """The chunks with the document's metadata; title and headings beside it, unless the caller has their own."""
    given: dict[str, Any] = orjson.loads(document.metadata_json) if document.metadata_json else {}
    found: dict[str, Any] = {"title": title} if title else {}
    whole = Chunk(id="", document_id=document.id, text="", allowed_principals=document.allowed_principals)
    chunks = []
    for number, piece in enumerate(pieces):
        more = found | ({"headings": list(piece.headings)} if piece.headings else {})
        metadata = orjson.dumps(more | given).decode() if more else document.metadata_json
        chunks.append(replace(whole, id=f"{document.id}#{number}", text=piece.text, metadata_json=metadata))
    return chunks
