"""What a search must be like. Each fault raises the error that it has, with the field where it stands."""

import math
from typing import Final

from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError, Violation
from retrieval_svc import checks
from retrieval_svc.search.calls import SearchCall, SearchLimits, SearchMode
from retrieval_svc.values import CollectionSpec

CALLS_MAX: Final = 256
FUSION_CANDIDATES_MAX: Final = 10_000
POOL_MAX: Final = 1000
"""Most candidates that are diversified or reranked."""
HITS_PER_DOCUMENT_MAX: Final = 100
EF_SEARCH_MAX: Final = 10_000
NPROBE_MAX: Final = 65_536
RRF_K_MAX: Final = 1000


def check_count(count: int) -> None:
    """How many searches one batch has."""
    if not 1 <= count <= CALLS_MAX:
        raise _invalid("requests", f"give from 1 to {CALLS_MAX} requests in one call; not {count}")


def in_batch(error: PenstockError, at: int) -> PenstockError:
    """A fault of one search as the fault of its batch."""
    place = f"requests[{at}]"
    metadata = error.metadata | ({"field": f"{place}.{error.metadata['field']}"} if "field" in error.metadata else {})
    violations = [Violation(message=fault.message, field=f"{place}.{fault.field}") for fault in error.violations]
    return type(error)(f"{place}: {error.message}", metadata=metadata, violations=violations)


def check_call(call: SearchCall, spec: CollectionSpec, limits: SearchLimits) -> None:
    """One search, but for its vector and its page token.

    Raises TopKOutOfRange, EmptyText, InvalidArgument; FailedPrecondition for words where the collection does not index them.
    """
    checks.top_k(call.top_k, limits.top_k_max)
    if call.text is not None:
        checks.text(call.text, "text", limits.query_text_bytes_max)
    _query(call)
    if call.mode is not SearchMode.DENSE and not spec.lexical.enabled:
        message = (
            f"the texts of {spec.id!r} are not indexed by their words, so {call.mode.value} search is refused: search it "
            "dense, or create a collection with lexical.enabled and ingest into that"
        )
        violation = Violation(message=message, field="mode")
        raise FailedPrecondition(message, metadata={"collection": spec.id, "field": "mode"}, violations=[violation])
    _between(call.ef_search, 1, EF_SEARCH_MAX, "ef_search")
    _between(call.nprobe, 1, NPROBE_MAX, "nprobe")
    if call.score_min is not None and not math.isfinite(call.score_min):
        raise _invalid("score_min", f"score_min is a finite number; not {call.score_min}")
    _fusion(call)
    _pools(call)


def _query(call: SearchCall) -> None:
    """That there is what the mode searches with, and nothing that it would ignore."""
    if call.text is None:
        if call.mode is not SearchMode.DENSE:
            raise _invalid("text", f"a {call.mode.value} search needs a text")
        if call.reranking:
            raise _invalid("text", "reranking needs a text, which the reranker reads together with each chunk")
        if call.vector is None:
            raise _invalid("text", "give a text or a vector to search for")
    elif call.vector is not None and call.mode is SearchMode.DENSE and not call.reranking:
        raise _invalid("vector", "give a text or a vector: both only in a hybrid or a reranked search")
    if call.vector is not None and call.mode is SearchMode.LEXICAL:
        raise _invalid("vector", "a lexical search takes no vector; mode hybrid takes both")


def _fusion(call: SearchCall) -> None:
    fusion = call.fusion
    if fusion is None:
        return
    if call.mode is not SearchMode.HYBRID:
        raise _invalid("fusion", f"a {call.mode.value} search has nothing to fuse; say mode hybrid, or leave fusion out")
    _between(fusion.dense_weight, 0, 1, "fusion.dense_weight")
    _between(fusion.rrf_k, 1, RRF_K_MAX, "fusion.rrf_k")
    _between(fusion.candidates, 1, FUSION_CANDIDATES_MAX, "fusion.candidates")


def _pools(call: SearchCall) -> None:
    """Diversity, grouping and reranking, which work on bounded numbers of candidates."""
    if call.grouping:
        _between(call.grouping.hits_per_document_max, 1, HITS_PER_DOCUMENT_MAX, "grouping.hits_per_document_max")
    if call.diversity:
        _between(call.diversity.relevance_weight, 0, 1, "diversity.relevance_weight")
        _between(call.diversity.candidates, 1, POOL_MAX, "diversity.candidates")
    if call.reranking:
        _between(call.reranking.candidates, 1, POOL_MAX, "reranking.candidates")
    if (call.diversity or call.reranking) and call.top_k > POOL_MAX:
        raise _invalid("top_k", f"a diversified or reranked search has at most {POOL_MAX} hits; not {call.top_k}")


def _between(value: float | None, low: int, high: int, field: str) -> None:
    if value is not None and not low <= value <= high:  # NaN is not between either.
        raise _invalid(field, f"{field} is from {low} to {high}; not {value}")


def _invalid(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
