"""Searches and their answers between the messages of penstock.retrieval.v1 and the service's own values."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np

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
_PLAIN: Final = frozenset({"collection", "text", "vector", "top_k"})
"""The fields of a search that asks for nothing special; such a one is read without looking at the others."""


def call_from(request: pb.SearchRequest, uid: int, visibility: Visibility) -> SearchCall:
    """What a search of the collection `uid` asks for. Raises InvalidArgument."""
    given: dict[str, Any] = {field.name: value for field, value in request.ListFields()}
    plain = {name: given[name] for name in ("text", "vector", "top_k") if name in given}
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
        ef_search=given.get("ef_search"),
        nprobe=given.get("nprobe"),
        exact=request.exact,
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


def response_message(result: SearchResult) -> pb.SearchResponse:
    """The answer of one search."""
    response = pb.SearchResponse.FromString(_hits(result))
    if result.next_page_token:
        response.next_page_token = result.next_page_token
    if result.missing_shards:
        response.partial = True
        response.missing_shards.extend(result.missing_shards)
    for name in ("dense_score", "lexical_score"):
        scores = getattr(result, f"{name}s")
        if scores is not None:
            for at in np.flatnonzero(~np.isnan(scores)).tolist():
                setattr(response.hits[at], name, float(scores[at]))
    return response


def _hits(result: SearchResult) -> bytes:
    """The hits of an answer as protobuf writes them, their chunks put in as they are kept: half the cost of building messages.

    A hit is its chunk (field 1, with its length) and its score (field 2, four bytes); a hit is field 1 of the answer.
    """
    scores = result.scores.astype("<f4", copy=False).tobytes()
    parts: list[bytes] = []
    for at, chunk in enumerate(result.chunks):
        head = b"\x0a" + _varint(len(chunk))
        parts += (b"\x0a", _varint(len(head) + len(chunk) + 5), head, chunk, b"\x15", scores[4 * at : 4 * at + 4])
    return b"".join(parts)


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
