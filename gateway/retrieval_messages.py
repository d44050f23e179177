"""Between the retriever's port and the messages of the retrieval service. Nothing is decided here."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2

from gateway.backends import Purpose, SearchRequest, Vectors
from gateway.structs import from_struct
from gateway.values import Document
from penstock.retrieval.v1 import retrieval_pb2 as pb

_MODES: Final = {
    "dense": pb.SEARCH_MODE_UNSPECIFIED,  # The service's own; a search that says nothing more is read faster.
    "lexical": pb.SEARCH_MODE_LEXICAL,
    "hybrid": pb.SEARCH_MODE_HYBRID,
}
_METHODS: Final = {"convex": pb.FUSION_METHOD_CONVEX, "reciprocal_rank": pb.FUSION_METHOD_RECIPROCAL_RANK}
_PURPOSES: Final[Mapping[Purpose, pb.EmbedPurpose]] = {
    "query": pb.EMBED_PURPOSE_QUERY,
    "document": pb.EMBED_PURPOSE_DOCUMENT,
}


def search_message(search: SearchRequest) -> pb.SearchRequest:
    """A search as the service takes it."""
    message = pb.SearchRequest(
        collection=f"collections/{search.collection}",
        text=search.text,
        top_k=search.top_k,
        mode=_MODES[search.mode],
        score_min=search.score_min,
        ef_search=search.ef_search,
        nprobe=search.nprobe,
        exact=search.exact,
        fields=search.fields,
    )
    if search.vector is not None:
        message.vector = struct.pack(f"<{len(search.vector)}f", *search.vector)
    if search.filter is not None:
        message.filter.CopyFrom(filter_message(search.filter))
    if search.hits_per_document_max is not None:
        message.grouping.hits_per_document_max = search.hits_per_document_max
    _write_ranking(search, message)
    return message


def _write_ranking(search: SearchRequest, message: pb.SearchRequest) -> None:
    if (fusion := search.fusion) is not None:
        message.fusion.CopyFrom(
            pb.Fusion(
                method=_METHODS[fusion.method],
                dense_weight=fusion.dense_weight,
                rrf_k=fusion.rrf_k,
                candidates=fusion.candidates,
            )
        )
    if (diversity := search.diversity) is not None:
        message.diversity.CopyFrom(pb.Diversity(relevance_weight=diversity.relevance_weight, candidates=diversity.candidates))
    if (reranking := search.reranking) is not None:
        message.reranking.CopyFrom(pb.Reranking(model=reranking.model, candidates=reranking.candidates))


def filter_message(condition: Mapping[str, Any]) -> pb.Filter:
    """A filter in the flow language's spelling, {"equals": {"field": "lang", "value": "en"}}, as the service takes it."""
    ((kind, said),) = condition.items()
    message = pb.Filter()
    match kind:
        case "equals":
            message.equals.CopyFrom(pb.Equals(field=said["field"], value=_value(said["value"])))
        case "one_of":
            values = said["values"] if isinstance(said["values"], list) else [said["values"]]
            message.one_of.CopyFrom(pb.OneOf(field=said["field"], values=map(_value, values)))
        case "range":
            bounds = {name: _value(bound) for name, bound in said.items() if name != "field"}
            message.range.CopyFrom(pb.Range(field=said["field"], **bounds))
        case "exists":
            message.exists.CopyFrom(pb.Exists(field=said["field"]))
        case _:  # all_of, any_of, none_of
            getattr(message, kind).CopyFrom(pb.Filters(filters=map(filter_message, said)))
    return message


def document(hit: pb.Hit) -> Document:
    """A passage that was found."""
    chunk = hit.chunk
    return Document(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        score=hit.score,
        metadata=from_struct(chunk.metadata),
    )


def embed_message(model: str, texts: Iterable[str], purpose: Purpose) -> pb.EmbedRequest:
    """Texts to embed as the service takes them."""
    return pb.EmbedRequest(model=model, texts=texts, purpose=_PURPOSES[purpose])


def vectors(response: pb.EmbedResponse) -> Vectors:
    """The vectors of texts."""
    return Vectors(vectors=tuple(map(unpacked, response.vectors)), input_tokens=response.token_count)


def unpacked(values: bytes) -> tuple[float, ...]:
    """A vector as both services write it: little-endian float32."""
    return struct.unpack(f"<{len(values) // 4}f", values)


def _value(value: str | float) -> struct_pb2.Value:
    """A scalar, or a list, which the service refuses by the field's name."""
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, list):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=map(_value, value)))
    return struct_pb2.Value(bool_value=value) if isinstance(value, bool) else struct_pb2.Value(number_value=value)
