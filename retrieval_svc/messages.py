"""Collections, documents, models and states between the messages of penstock.retrieval.v1 and the service's own values."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from penstock.errors import InvalidArgument, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.catalog import Wanted
from retrieval_svc.operations import StoredSnapshot
from retrieval_svc.struct_json import json_of
from retrieval_svc.values import (
    Collection,
    Document,
    EmbeddingModel,
    IndexConfig,
    IndexKind,
    LexicalConfig,
    Metric,
    ShardStatus,
)

E = TypeVar("E")

_METRICS: Final[Mapping[int, Metric]] = {
    pb.METRIC_UNSPECIFIED: Metric.COSINE,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
    pb.METRIC_L2: Metric.L2,
}
_METRIC_NAMES: Final = {metric: pb.Metric.Name(number) for number, metric in _METRICS.items() if number}
_KINDS: Final[Mapping[int, IndexKind]] = {
    pb.INDEX_KIND_UNSPECIFIED: IndexKind.AUTO,
    pb.INDEX_KIND_AUTO: IndexKind.AUTO,
    pb.INDEX_KIND_FLAT: IndexKind.FLAT,
    pb.INDEX_KIND_HNSW: IndexKind.HNSW,
    pb.INDEX_KIND_IVF_SQ8: IndexKind.IVF_SQ8,
    pb.INDEX_KIND_IVF_PQ: IndexKind.IVF_PQ,
}
_KIND_NAMES: Final = {kind: pb.IndexKind.Name(number) for number, kind in _KINDS.items() if number}
_INDEX_OPTIONS: Final = (
    "hnsw_m",
    "hnsw_ef_construction",
    "hnsw_ef_search",
    "ivf_lists",
    "ivf_nprobe",
    "pq_bytes",
    "rescore_factor",
)


def chosen(choices: Mapping[int, E], number: int, field: str) -> E:
    """The value of an enum's number. Raises InvalidArgument for one that the enum does not have."""
    choice = choices.get(number)
    if choice is None:
        message = f"{field} has no value of number {number}"
        raise InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
    return choice


def wanted_from(request: pb.CreateCollectionRequest) -> Wanted:
    """The collection that a request asks for."""
    asked = request.collection
    return Wanted(
        id=request.collection_id,
        embedding_model=asked.embedding_model,
        dimension=asked.dimension,
        metric=chosen(_METRICS, asked.metric, "collection.metric"),
        index=_index_from(asked.index),
        lexical=_lexical_from(asked),
        shard_count=asked.shard_count,
    )


def collection_message(collection: Collection, statuses: Sequence[ShardStatus] = ()) -> pb.Collection:
    """A collection as it is sent; the kind of index in use is that of the largest of the shards that are known."""
    spec = collection.spec
    largest = max(statuses, key=lambda status: status.row_count, default=None)
    return pb.Collection(
        name=f"collections/{spec.id}",
        embedding_model=spec.embedding_model,
        dimension=spec.dimension,
        metric=_METRIC_NAMES[spec.metric],
        chunk_count=collection.chunk_count,
        embedding_fingerprint=spec.embedding_fingerprint,
        index=_index_message(spec.index),
        index_kind_in_use=_KIND_NAMES[largest.index_kind] if largest else None,
        shard_count=spec.shard_count,
        lexical=pb.LexicalConfig(enabled=spec.lexical.enabled, language=spec.lexical.language),
    )


def document_from(message: pb.Document, at: int) -> Document:
    """The document at a place of a request."""
    return Document(
        id=message.id,
        text=message.text,
        metadata_json=json_of(message.metadata, f"documents[{at}].metadata"),
        content=message.content,
        content_type=message.content_type,
        allowed_principals=tuple(message.allowed_principals),
    )


def status_message(status: ShardStatus) -> pb.ShardStatus:
    """A shard's state as it is sent."""
    return pb.ShardStatus(
        shard=status.shard,
        position=status.position,
        record_position=status.record_position,
        row_count=status.row_count,
        deleted_row_count=status.deleted_row_count,
        head_row_count=status.head_row_count,
        segment_count=status.segment_count,
        index_kind=_KIND_NAMES[status.index_kind],
        size_bytes=status.size_bytes,
    )


def snapshot_message(snapshot: StoredSnapshot) -> pb.Snapshot:
    """A snapshot as it is sent."""
    message = pb.Snapshot(id=snapshot.id, shard=snapshot.shard, position=snapshot.position, size_bytes=snapshot.size_bytes)
    message.create_time.FromDatetime(snapshot.created)
    return message


def model_message(model: EmbeddingModel, *, is_default: bool) -> pb.Model:
    """A loaded model as it is sent."""
    return pb.Model(
        name=model.name,
        dimension=model.dimension,
        window_tokens=model.window_tokens,
        backend=model.backend,
        embedding_fingerprint=model.fingerprint,
        is_default=is_default,
    )


def _index_from(message: pb.IndexConfig) -> IndexConfig:
    given = {name: getattr(message, name) for name in _INDEX_OPTIONS if message.HasField(name)}
    return IndexConfig(kind=chosen(_KINDS, message.kind, "collection.index.kind"), **given)


def _index_message(config: IndexConfig) -> pb.IndexConfig:
    options = {name: getattr(config, name) for name in _INDEX_OPTIONS}
    given = {name: value for name, value in options.items() if value is not None}
    return pb.IndexConfig(kind=_KIND_NAMES[config.kind], **given)


def _lexical_from(asked: pb.Collection) -> LexicalConfig:
    if not asked.HasField("lexical"):
        return LexicalConfig()
    return LexicalConfig(enabled=asked.lexical.enabled, language=asked.lexical.language or "en")
