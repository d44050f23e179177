"""Between the retrieval client's values and the protos."""

import sys
from array import array
from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final

from penstock.clients.choices import chosen
from penstock.clients.connection import resource_name, short_name
from penstock.clients.retrieval_values import (
    Chunk,
    Collection,
    Document,
    EmbeddingModel,
    Embeddings,
    Hit,
    Hits,
    Index,
    IndexKind,
    Ingested,
    ItemError,
    Lexical,
    Metric,
    ShardStatus,
    Snapshot,
    Splitter,
    Splitting,
    StreamIngested,
    Vector,
)
from penstock.clients.structs import from_struct, to_struct
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.wire import from_status

METRICS: Final[dict[Metric, pb.Metric]] = {
    "cosine": pb.METRIC_COSINE,
    "inner_product": pb.METRIC_INNER_PRODUCT,
    "l2": pb.METRIC_L2,
}
_METRIC_NAMES: Final = {value: name for name, value in METRICS.items()}
_INDEX_KINDS: Final[dict[IndexKind, pb.IndexKind]] = {
    "auto": pb.INDEX_KIND_AUTO,
    "flat": pb.INDEX_KIND_FLAT,
    "hnsw": pb.INDEX_KIND_HNSW,
    "ivf_sq8": pb.INDEX_KIND_IVF_SQ8,
    "ivf_pq": pb.INDEX_KIND_IVF_PQ,
}
_INDEX_KIND_NAMES: Final = {value: name for name, value in _INDEX_KINDS.items()}
_SPLITTERS: Final[dict[Splitter, pb.Splitter]] = {
    "auto": pb.SPLITTER_UNSPECIFIED,
    "sentences": pb.SPLITTER_SENTENCES,
    "tokens": pb.SPLITTER_TOKENS,
    "markdown": pb.SPLITTER_MARKDOWN,
}


def collection_name(collection: str) -> str:
    """The resource name of a collection that is called by its id or by that name."""
    return resource_name("collections", collection)


def float32_bytes(vector: Vector) -> bytes:
    """A vector as the protos have it."""
    if isinstance(vector, bytes):
        return vector
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def index_message(index: Index) -> pb.IndexConfig:
    """How a collection is to be indexed."""
    return pb.IndexConfig(
        kind=chosen(_INDEX_KINDS, index.kind, "index.kind"),
        hnsw_m=index.hnsw_m,
        hnsw_ef_construction=index.hnsw_ef_construction,
        hnsw_ef_search=index.hnsw_ef_search,
        ivf_lists=index.ivf_lists,
        ivf_nprobe=index.ivf_nprobe,
        pq_bytes=index.pq_bytes,
        rescore_factor=index.rescore_factor,
    )


def splitting_message(splitting: Splitting | None) -> pb.Splitting | None:
    """How documents are to be split; None: as the service is set."""
    if splitting is None:
        return None
    return pb.Splitting(
        splitter=chosen(_SPLITTERS, splitting.splitter, "splitting.splitter"),
        chunk_tokens_max=splitting.chunk_tokens_max,
        overlap_tokens=splitting.overlap_tokens,
    )


def document_message(document: Document) -> pb.Document:
    """A document to be stored. Raises InvalidArgument for metadata that JSON can't say."""
    return pb.Document(
        id=document.id,
        text=document.text,
        metadata=to_struct(document.metadata, f"the metadata of document {document.id!r}"),
        content=document.content,
        content_type=document.content_type,
        allowed_principals=document.allowed_principals,
    )


def chunk_message(chunk: Chunk) -> pb.Chunk:
    """A chunk to be stored. Raises InvalidArgument for metadata that JSON can't say."""
    return pb.Chunk(
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata=to_struct(chunk.metadata, f"the metadata of chunk {chunk.id!r}"),
        vector=b"" if chunk.vector is None else float32_bytes(chunk.vector),
        allowed_principals=chunk.allowed_principals,
    )


def chunk_from(chunk: pb.Chunk) -> Chunk:
    """A chunk as it was stored."""
    return Chunk(
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata=from_struct(chunk.metadata),
        vector=chunk.vector or None,
        allowed_principals=tuple(chunk.allowed_principals),
    )


def hits_from(response: pb.SearchResponse) -> Hits:
    """What a search found."""
    return Hits(
        hits=tuple(_hit(hit) for hit in response.hits),
        next_page_token=response.next_page_token,
        partial=response.partial,
        missing_shards=tuple(response.missing_shards),
    )


def _hit(hit: pb.Hit) -> Hit:
    return Hit(
        chunk_id=hit.chunk.id,
        document_id=hit.chunk.document_id,
        text=hit.chunk.text,
        metadata=from_struct(hit.chunk.metadata),
        score=hit.score,
        dense_score=hit.dense_score if hit.HasField("dense_score") else None,
        lexical_score=hit.lexical_score if hit.HasField("lexical_score") else None,
        vector=hit.chunk.vector or None,
        allowed_principals=tuple(hit.chunk.allowed_principals),
    )


def both(first: Ingested, second: pb.IngestDocumentsResponse) -> Ingested:
    """What two batches have stored together."""
    return Ingested(
        document_count=first.document_count + second.document_count,
        chunk_count=first.chunk_count + second.chunk_count,
        unchanged_count=first.unchanged_count + second.unchanged_count,
        consistency_token=joined((first.consistency_token, second.consistency_token)),
    )


def joined(tokens: Iterable[str]) -> str:
    """The token of several writes."""
    return ",".join(token for token in tokens if token)


def stream_ingested_from(response: pb.IngestStreamResponse) -> StreamIngested:
    """What a stream has stored."""
    return StreamIngested(
        document_count=response.document_count,
        chunk_count=response.chunk_count,
        unchanged_count=response.unchanged_count,
        consistency_token=response.consistency_token,
        error_count=response.error_count,
        errors=tuple(
            ItemError(index=each.index, document_id=each.document_id, error=from_status(each.error)) for each in response.errors
        ),
    )


def collection_from(collection: pb.Collection) -> Collection:
    """A collection as the service has it."""
    lexical = collection.lexical
    return Collection(
        name=short_name(collection.name),
        embedding_model=collection.embedding_model,
        dimension=collection.dimension,
        metric=_METRIC_NAMES.get(collection.metric, "cosine"),
        chunk_count=collection.chunk_count,
        embedding_fingerprint=collection.embedding_fingerprint,
        index=_index_from(collection.index),
        index_kind_in_use=_INDEX_KIND_NAMES.get(collection.index_kind_in_use, "auto"),
        shard_count=collection.shard_count,
        lexical=Lexical(enabled=lexical.enabled, language=lexical.language) if collection.HasField("lexical") else None,
    )


def _index_from(index: pb.IndexConfig) -> Index:
    given: dict[str, Any] = {field.name: value for field, value in index.ListFields() if field.name != "kind"}
    return Index(kind=_INDEX_KIND_NAMES.get(index.kind, "auto"), **given)


def embeddings_from(response: pb.EmbedResponse) -> Embeddings:
    """The vectors of texts."""
    return Embeddings(
        vectors=tuple(response.vectors),
        dimension=response.dimension,
        model=response.model,
        embedding_fingerprint=response.embedding_fingerprint,
        token_count=response.token_count,
    )


def model_from(model: pb.Model) -> EmbeddingModel:
    """A model that is loaded."""
    return EmbeddingModel(
        name=model.name,
        dimension=model.dimension,
        window_tokens=model.window_tokens,
        backend=model.backend,
        embedding_fingerprint=model.embedding_fingerprint,
        is_default=model.is_default,
    )


def shard_from(status: pb.ShardStatus) -> ShardStatus:
    """A shard's state."""
    return ShardStatus(
        shard=status.shard,
        position=status.position,
        record_position=status.record_position,
        row_count=status.row_count,
        deleted_row_count=status.deleted_row_count,
        head_row_count=status.head_row_count,
        segment_count=status.segment_count,
        index_kind=_INDEX_KIND_NAMES.get(status.index_kind, "auto"),
        size_bytes=status.size_bytes,
    )


def snapshot_from(snapshot: pb.Snapshot) -> Snapshot:
    """A snapshot in the store."""
    return Snapshot(
        id=snapshot.id,
        shard=snapshot.shard,
        position=snapshot.position,
        create_time=snapshot.create_time.ToDatetime(tzinfo=UTC),
        size_bytes=snapshot.size_bytes,
    )
