"""Searches and their answers between the messages of penstock.retrieval.v1 and the service's own values."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.encoded import Encoded
from penstock.errors import InvalidArgument, PenstockError, Violation
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.chunk_messages import check_fields
from retrieval_svc.consistency import positions_in
from retrieval_svc.filter_messages import filter_from
from retrieval_svc.messages import chosen
from retrieval_svc.search.calls import (
    Diversity,
    Fusion,
    FusionMethod,
    Grouping,
    Reranking,
    SearchCall,
    SearchMode,
    SearchResult,
)
from retrieval_svc.search.checking import in_batch
from retrieval_svc.values import Visibility

T = TypeVar("T")

_MODES: Final[Mapping[int, SearchMode]] = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.DENSE,
    pb.SEARCH_MODE_DENSE: SearchMode.DENSE,
    pb.SEARCH_MODE_LEXICAL: SearchMode.LEXICAL,
    pb.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
}
_METHODS: Final[Mapping[int, FusionMethod]] = {
    pb.FUSION_METHOD_UNSPECIFIED: FusionMethod.CONVEX,
    pb.FUSION_METHOD_CONVEX: FusionMethod.CONVEX,
    pb.FUSION_METHOD_RECIPROCAL_RANK: FusionMethod.RECIPROCAL_RANK,
}
_PLAIN: Final = frozenset({"collection", "text", "vector", "top_k", "ef_search", "nprobe", "exact"})
"""The fields that are taken as they are; a search that has no others, which most have not, is read without looking for them."""
_TAKEN: Final = _PLAIN - {"collection"}


def call_from(request: pb.SearchRequest, uid: int, visibility: Visibility) -> SearchCall:
    """What a search of the collection `uid` asks for. Raises InvalidArgument."""
    given = _given(request)
    plain = {name: value for name, value in given.items() if name in _TAKEN}
    if _PLAIN.issuperset(given):
        return SearchCall(**plain, visibility=visibility)
    check_fields(request.fields)
    return SearchCall(
        **plain,
        mode=chosen(_MODES, request.mode, "mode"),
        filter=filter_from(request.filter) if "filter" in given else None,
        fusion=_fusion(request.fusion) if "fusion" in given else None,
        score_min=given.get("score_min"),
        diversity=Diversity(**_given(request.diversity)) if "diversity" in given else None,
        grouping=Grouping(**_given(request.grouping)) if "grouping" in given else None,
        reranking=Reranking(**_given(request.reranking)) if "reranking" in given else None,
        fields=tuple(request.fields),
        page_token=request.page_token,
        at_least=positions_in(uid, request.consistency_token),
        allow_partial=request.allow_partial,
        visibility=visibility,
    )


def calls_from(request: pb.SearchBatchRequest, uid: int, visibility: Visibility) -> list[SearchCall]:
    """What each search of a batch asks for."""
    calls = []
    for at, each in enumerate(request.requests):
        if each.collection not in {"", request.collection}:
            message = f"requests[{at}] names {each.collection!r}; a batch searches one collection, {request.collection!r}"
            field = f"requests[{at}].collection"
            raise InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
        try:
            calls.append(call_from(each, uid, visibility))
        except PenstockError as error:
            raise in_batch(error, at) from None
    return calls


def search_response(result: SearchResult) -> Encoded[pb.SearchResponse]:
    """The answer of one search."""
    return Encoded(pb.SearchResponse, _response(result))


def batch_response(results: Iterable[SearchResult]) -> Encoded[pb.SearchBatchResponse]:
    """The answers of a batch, each field 1 of the whole."""
    parts: list[bytes] = []
    for result in results:
        response = _response(result)
        parts += (b"\x0a", _varint(len(response)), response)
    return Encoded(pb.SearchBatchResponse, b"".join(parts))


def _response(result: SearchResult) -> bytes:
    """An answer as protobuf writes it, with the chunks put in as they are kept: a tenth of the cost of building messages.

    A hit, field 1 of the answer, is its chunk (field 1) and its scores (fields 2 to 4, four bytes each). What else an answer
    has is a message put behind them: protobuf reads messages one after another as one.
    """
    scores = _scores(result)
    heads = map(_hit_head, map(len, result.chunks), map(len, scores))
    hits = chain.from_iterable(zip(heads, result.chunks, scores, strict=True))
    if not (result.next_page_token or result.missing_shards):
        return b"".join(hits)
    rest = pb.SearchResponse(
        next_page_token=result.next_page_token,
        partial=bool(result.missing_shards),
        missing_shards=result.missing_shards,
    )
    return b"".join((*hits, rest.SerializeToString()))


@lru_cache(maxsize=4096)
def _hit_head(chunk_bytes: int, score_bytes: int) -> bytes:
    """What stands before the chunk of a hit: tags and lengths of both. Chunks of one collection have few lengths."""
    chunk_head = b"\x0a" + _varint(chunk_bytes)
    return b"\x0a" + _varint(len(chunk_head) + chunk_bytes + score_bytes) + chunk_head


def _scores(result: SearchResult) -> list[bytes]:
    """The fields of each hit's scores."""
    scores = _floats(b"\x15", result.scores)
    for tag, side in ((b"\x1d", result.dense_scores), (b"\x25", result.lexical_scores)):
        if side is not None:
            known = (~np.isnan(side)).tolist()
            fields = zip(scores, _floats(tag, side), known, strict=True)
            scores = [score + field if is_known else score for score, field, is_known in fields]
    return scores


def _floats(tag: bytes, numbers: NDArray[np.float32]) -> list[bytes]:
    """A field of four bytes for each number."""
    data = numbers.astype("<f4", copy=False).tobytes()
    return [tag + data[at : at + 4] for at in range(0, len(data), 4)]


def _varint(number: int) -> bytes:
    if number < 1 << 7:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    digits = bytearray()
    while number >= 1 << 7:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _fusion(message: pb.Fusion) -> Fusion:
    return Fusion(**{**_given(message), "method": chosen(_METHODS, message.method, "fusion.method")})


def _given(message: Any) -> dict[str, Any]:
    """The fields of a message that are there."""
    return {field.name: value for field, value in message.ListFields()}
