"""Between the messages of penstock.retrieval.v1 and the service's own values."""

import math
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson
from google.protobuf import struct_pb2

from penstock.errors import InvalidArgument, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.search.searching import Query
from retrieval_svc.values import Chunk, Collection, Document, Hit, Metric, StoredChunk

TOP_K_DEFAULT: Final = 10

_METRICS: Final[dict[int, Metric]] = {
    pb.METRIC_UNSPECIFIED: Metric.COSINE,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
}
_METRIC_NUMBERS: Final = {Metric.COSINE: pb.METRIC_COSINE, Metric.INNER_PRODUCT: pb.METRIC_INNER_PRODUCT}
_EXACT_INTEGER_MAX: Final = 2**53


def metric_from(number: int) -> Metric:
    """The metric of an enum's number. Raises InvalidArgument for one that is none."""
    metric = _METRICS.get(number)
    if metric is None:
        raise _invalid("collection.metric", f"there is no metric of number {number}")
    return metric


def document_from(message: pb.Document, at: int) -> Document:
    """The document at a place of a request."""
    metadata = _json_of(message.metadata, f"documents[{at}].metadata")
    return Document(id=message.id, text=message.text, metadata_json=metadata)


def chunk_from(message: pb.Chunk, at: int) -> Chunk:
    """The chunk at a place of a request."""
    return Chunk(
        id=message.id,
        document_id=message.document_id,
        text=message.text,
        metadata_json=_json_of(message.metadata, f"chunks[{at}].metadata"),
        vector=message.vector,
    )


def query_from(request: pb.SearchRequest) -> Query:
    """What a search asks for. Raises InvalidArgument when it asks for nothing."""
    top_k = request.top_k if request.HasField("top_k") else TOP_K_DEFAULT
    match request.WhichOneof("query"):
        case "text":
            return Query(text=request.text, top_k=top_k)
        case "vector":
            return Query(vector=request.vector, top_k=top_k)
        case _:
            raise _invalid("query", "give a text or a vector to search for")


def collection_message(collection: Collection) -> pb.Collection:
    """A collection as it is sent."""
    spec = collection.spec
    return pb.Collection(
        name=f"collections/{spec.id}",
        embedding_model=spec.embedding_model,
        dimension=spec.dimension,
        metric=_METRIC_NUMBERS[spec.metric],
        chunk_count=collection.chunk_count,
        embedding_fingerprint=spec.embedding_fingerprint,
    )


def chunk_message(chunk: StoredChunk) -> pb.Chunk:
    """A chunk as it is sent, without its vector."""
    message = pb.Chunk(id=chunk.id, document_id=chunk.document_id, text=chunk.text)
    if chunk.metadata_json:
        message.metadata.update(orjson.loads(chunk.metadata_json))
    return message


class HitEncoder:
    """Answers of searches. A chunk's message is made once and kept as long as the search's cache keeps the chunk."""

    def __init__(self) -> None:
        self._messages: WeakKeyDictionary[StoredChunk, pb.Chunk] = WeakKeyDictionary()

    def response(self, hits: list[Hit]) -> pb.SearchResponse:
        """The answer of one search."""
        return pb.SearchResponse(hits=[pb.Hit(chunk=self._message(hit.chunk), score=hit.score) for hit in hits])

    def _message(self, chunk: StoredChunk) -> pb.Chunk:
        message = self._messages.get(chunk)
        if message is None:
            message = self._messages[chunk] = chunk_message(chunk)
        return message


def _json_of(metadata: struct_pb2.Struct, field: str) -> str:
    return orjson.dumps(_plain_struct(metadata, field)).decode() if metadata.fields else ""


def _plain_struct(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    return {key: _plain(value, f"{field}.{key}") for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value, field: str) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain_struct(value.struct_value, field)
        case "list_value":
            return [_plain(item, field) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value, field)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float, field: str) -> float | int:
    """Every number of a Struct is a double; those that were whole come back whole."""
    if not math.isfinite(number):
        raise _invalid(field, f"{field} is not a finite number, which JSON does not have")
    return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGER_MAX else number


def _invalid(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
