"""Writes and embeddings between the messages of penstock.retrieval.v1 and the service's own values."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.rpc import status_pb2

from penstock.errors import InvalidArgument, PenstockError, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.wire import to_status
from retrieval_svc.checks import DOCUMENTS_MAX
from retrieval_svc.consistency import consistency_token
from retrieval_svc.embedding.models import EmbeddedTexts
from retrieval_svc.ingest.splitting import Splitter, Splitting
from retrieval_svc.ingest.streaming import Item, Refused, Streamed, Written
from retrieval_svc.messages import chosen, document_from

_SPLITTERS: Final[Mapping[int, Splitter]] = {
    pb.SPLITTER_UNSPECIFIED: Splitter.BY_TYPE,
    pb.SPLITTER_SENTENCES: Splitter.SENTENCES,
    pb.SPLITTER_TOKENS: Splitter.TOKENS,
    pb.SPLITTER_MARKDOWN: Splitter.MARKDOWN,
}
_IS_QUERY: Final[Mapping[int, bool]] = {
    pb.EMBED_PURPOSE_UNSPECIFIED: False,
    pb.EMBED_PURPOSE_DOCUMENT: False,
    pb.EMBED_PURPOSE_QUERY: True,
}


def splitting_from(message: pb.Splitting) -> Splitting:
    """How documents are to be split."""
    return Splitting(
        splitter=chosen(_SPLITTERS, message.splitter, "splitting.splitter"),
        chunk_tokens_max=message.chunk_tokens_max if message.HasField("chunk_tokens_max") else None,
        overlap_tokens=message.overlap_tokens if message.HasField("overlap_tokens") else None,
    )


def documents_response(written: Written, uid: int) -> pb.IngestDocumentsResponse:
    """What became of documents."""
    return pb.IngestDocumentsResponse(
        document_count=written.document_count + written.unchanged_count,
        chunk_count=written.chunk_count,
        unchanged_count=written.unchanged_count,
        consistency_token=consistency_token(uid, written.positions),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedStream:
    """A stream of documents whose first message has been read. `items` has a part for each message."""

    collection: str
    splitting: Splitting
    items: AsyncIterator[list[Item]]


async def opened_stream(requests: AsyncIterator[pb.IngestStreamRequest]) -> OpenedStream:
    """Reads the first message of a stream. Raises InvalidArgument where there is none."""
    first = await anext(requests, None)
    if first is None:
        raise _invalid("collection", "the stream ended before its first message, which names the collection")
    return OpenedStream(collection=first.collection, splitting=splitting_from(first.splitting), items=_items(first, requests))


def stream_response(streamed: Streamed, uid: int) -> pb.IngestStreamResponse:
    """What became of a stream."""
    written = streamed.written
    return pb.IngestStreamResponse(
        document_count=written.document_count + written.unchanged_count,
        chunk_count=written.chunk_count,
        unchanged_count=written.unchanged_count,
        error_count=streamed.error_count,
        errors=[
            pb.ItemError(index=each.index, document_id=each.document_id, error=_status(each.error)) for each in streamed.errors
        ],
        consistency_token=consistency_token(uid, written.positions),
    )


def is_query(purpose: int) -> bool:
    """Whether texts are to be embedded as what is searched for."""
    return chosen(_IS_QUERY, purpose, "purpose")


def embed_response(embedded: EmbeddedTexts) -> pb.EmbedResponse:
    """Vectors as they are sent."""
    rows = embedded.vectors.astype("<f4", copy=False)
    return pb.EmbedResponse(
        vectors=[row.tobytes() for row in rows],
        dimension=embedded.model.dimension,
        model=embedded.model.name,
        embedding_fingerprint=embedded.model.fingerprint,
        token_count=embedded.token_count,
    )


async def _items(first: pb.IngestStreamRequest, rest: AsyncIterator[pb.IngestStreamRequest]) -> AsyncIterator[list[Item]]:
    yield _items_of(first)
    async for message in rest:
        if message.collection not in {"", first.collection}:
            raise _invalid("collection", "a stream is of one collection, that of its first message")
        yield _items_of(message)


def _items_of(message: pb.IngestStreamRequest) -> list[Item]:
    if len(message.documents) > DOCUMENTS_MAX:
        raise _invalid("documents", f"a message has at most {DOCUMENTS_MAX} documents; not {len(message.documents)}")
    return [_item(document, at) for at, document in enumerate(message.documents)]


def _item(message: pb.Document, at: int) -> Item:
    try:
        return document_from(message, at)
    except InvalidArgument as error:
        return Refused(document_id=message.id, error=error)


def _status(error: PenstockError) -> status_pb2.Status:
    return to_status(error)


def _invalid(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
