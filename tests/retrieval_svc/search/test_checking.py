"""What a search must be like, field by field."""

import math
from dataclasses import replace

import pytest

from penstock.errors import EmptyText, FailedPrecondition, InvalidArgument, TopKOutOfRange
from retrieval_svc.search.calls import (
    Diversity,
    Fusion,
    Grouping,
    Reranking,
    SearchCall,
    SearchLimits,
    SearchMode,
)
from retrieval_svc.search.checking import check_call, in_batch
from retrieval_svc.values import CollectionSpec, LexicalConfig, Metric

LIMITS = SearchLimits(top_k_max=2000, query_text_bytes_max=100)
SPEC = CollectionSpec(id="texts", embedding_model="m", embedding_fingerprint="m/1", dimension=2, metric=Metric.COSINE)
VECTOR = b"\0" * 8
DENSE, LEXICAL, HYBRID = SearchMode.DENSE, SearchMode.LEXICAL, SearchMode.HYBRID

GOOD = [
    SearchCall(text="x"),
    SearchCall(vector=VECTOR),
    SearchCall(text="x", mode=LEXICAL),
    SearchCall(text="x", mode=HYBRID),
    SearchCall(text="x", vector=VECTOR, mode=HYBRID),
    SearchCall(text="x", vector=VECTOR, reranking=Reranking()),
    SearchCall(text="x", mode=LEXICAL, reranking=Reranking(candidates=1000)),
    SearchCall(vector=VECTOR, diversity=Diversity(relevance_weight=0, candidates=1)),
    SearchCall(vector=VECTOR, diversity=Diversity(relevance_weight=1, candidates=1000)),
    SearchCall(text="x", mode=HYBRID, fusion=Fusion(dense_weight=0, rrf_k=1, candidates=10_000)),
    SearchCall(text="x", mode=HYBRID, fusion=Fusion(dense_weight=1, rrf_k=1000, candidates=1)),
    SearchCall(vector=VECTOR, grouping=Grouping(hits_per_document_max=100), top_k=2000),
    SearchCall(vector=VECTOR, ef_search=10_000, nprobe=65_536, score_min=-1e30),
]

BAD = {
    "text": [
        SearchCall(),
        SearchCall(mode=LEXICAL),
        SearchCall(vector=VECTOR, mode=HYBRID),
        SearchCall(vector=VECTOR, reranking=Reranking()),
        SearchCall(text="x" * 101),
        SearchCall(text="a\0b"),
    ],
    "vector": [SearchCall(text="x", vector=VECTOR), SearchCall(text="x", vector=VECTOR, mode=LEXICAL)],
    "top_k": [
        SearchCall(vector=VECTOR, diversity=Diversity(), top_k=1001),
        SearchCall(text="x", reranking=Reranking(), top_k=1001),
    ],
    "fusion": [SearchCall(text="x", fusion=Fusion())],
    "fusion.dense_weight": [
        SearchCall(text="x", mode=HYBRID, fusion=Fusion(dense_weight=weight)) for weight in (-0.1, 1.1, math.nan)
    ],
    "fusion.rrf_k": [SearchCall(text="x", mode=HYBRID, fusion=Fusion(rrf_k=k)) for k in (0, 1001)],
    "fusion.candidates": [SearchCall(text="x", mode=HYBRID, fusion=Fusion(candidates=count)) for count in (0, 10_001)],
    "diversity.relevance_weight": [
        SearchCall(vector=VECTOR, diversity=Diversity(relevance_weight=weight)) for weight in (-1, 2, math.nan)
    ],
    "diversity.candidates": [SearchCall(vector=VECTOR, diversity=Diversity(candidates=count)) for count in (0, 1001)],
    "grouping.hits_per_document_max": [
        SearchCall(vector=VECTOR, grouping=Grouping(hits_per_document_max=count)) for count in (0, 101)
    ],
    "reranking.candidates": [SearchCall(text="x", reranking=Reranking(candidates=count)) for count in (0, 1001)],
    "ef_search": [SearchCall(vector=VECTOR, ef_search=value) for value in (0, -1, 10_001)],
    "nprobe": [SearchCall(vector=VECTOR, nprobe=value) for value in (0, 65_537)],
    "score_min": [SearchCall(vector=VECTOR, score_min=value) for value in (math.nan, math.inf)],
}


@pytest.mark.parametrize("call", GOOD)
def test_what_the_proto_promises_is_taken(call: SearchCall) -> None:
    check_call(call, SPEC, LIMITS)


@pytest.mark.parametrize(("field", "call"), [(field, call) for field, calls in BAD.items() for call in calls])
def test_what_it_does_not_is_refused_with_the_field(field: str, call: SearchCall) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_call(call, SPEC, LIMITS)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize("top_k", [0, -1, 2001, 1_000_000])
def test_top_k_has_bounds(top_k: int) -> None:
    with pytest.raises(TopKOutOfRange) as refused:
        check_call(SearchCall(vector=VECTOR, top_k=top_k), SPEC, LIMITS)
    assert refused.value.metadata == {"limit": "2000"}


def test_a_text_of_white_space_is_empty() -> None:
    with pytest.raises(EmptyText):
        check_call(SearchCall(text=" \n"), SPEC, LIMITS)


@pytest.mark.parametrize("mode", [LEXICAL, HYBRID])
def test_words_are_refused_where_they_are_not_indexed(mode: SearchMode) -> None:
    unindexed = replace(SPEC, lexical=LexicalConfig(enabled=False))
    with pytest.raises(FailedPrecondition, match=r"lexical\.enabled"):
        check_call(SearchCall(text="x", mode=mode), unindexed, LIMITS)
    check_call(SearchCall(text="x"), unindexed, LIMITS)


def test_a_fault_in_a_batch_keeps_its_kind_and_gets_its_place() -> None:
    with pytest.raises(TopKOutOfRange) as refused:
        check_call(SearchCall(vector=VECTOR, top_k=0), SPEC, LIMITS)
    placed = in_batch(refused.value, 3)
    assert type(placed) is TopKOutOfRange
    assert (placed.violations[0].field, placed.metadata) == ("requests[3].top_k", {"limit": "2000"})
    assert placed.message.startswith("requests[3]: ")
