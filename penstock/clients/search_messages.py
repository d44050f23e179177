"""Searches as the retrieval client is asked for them, made into messages."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from penstock.clients.choices import check_names, chosen
from penstock.clients.retrieval_messages import float32_bytes
from penstock.clients.retrieval_values import Query, SearchMode, SearchOptions, Vector
from penstock.retrieval.v1 import retrieval_pb2 as pb

_MODES: Final[dict[SearchMode, pb.SearchMode]] = {
    "dense": pb.SEARCH_MODE_DENSE,
    "lexical": pb.SEARCH_MODE_LEXICAL,
    "hybrid": pb.SEARCH_MODE_HYBRID,
}
_FUSIONS: Final[dict[Literal["convex", "reciprocal_rank"], pb.FusionMethod]] = {
    "convex": pb.FUSION_METHOD_CONVEX,
    "reciprocal_rank": pb.FUSION_METHOD_RECIPROCAL_RANK,
}
_PLAIN: Final = (
    "top_k",
    "score_min",
    "ef_search",
    "nprobe",
    "exact",
    "fields",
    "page_token",
    "consistency_token",
    "allow_partial",
)


def search_message(collection: str, query: str | Vector, options: SearchOptions) -> pb.SearchRequest:
    """A search of `collection`, its resource name, or of none in a batch. An option that is None is left to the service.

    Raises TypeError for an option that there is not, InvalidArgument for a word that an option does not have.
    """
    check_options(options, "a search")
    given: Any = {name: value for name, value in options.items() if value is not None}
    request = pb.SearchRequest(collection=collection, **{name: given[name] for name in _PLAIN if name in given})
    if isinstance(query, str):
        request.text = query
    else:
        request.vector = float32_bytes(query)
    if "vector" in given:
        request.vector = float32_bytes(given["vector"])
    if "mode" in given:
        request.mode = chosen(_MODES, given["mode"], "mode")
    if "filter" in given:
        request.filter.CopyFrom(given["filter"].message)
    _refine(request, given)
    return request


def batched_message(query: str | Vector | Query, at: int) -> pb.SearchRequest:
    """The search at a place of a batch. Raises what `search_message` raises."""
    if not isinstance(query, dict):
        return search_message("", query, {})
    options: Any = {name: value for name, value in query.items() if name != "query"}
    check_options(options, f"queries[{at}]")
    if "query" not in query:
        raise TypeError(f"queries[{at}] has no 'query': give the text or the vector to search with")
    return search_message("", query["query"], options)


def check_options(options: Mapping[str, Any], what: str) -> None:
    """Raises TypeError for an option that a search does not have, speaking of `what` was given it."""
    check_names(options, SearchOptions.__optional_keys__, what)


def _refine(request: pb.SearchRequest, given: SearchOptions) -> None:
    if (fusion := given.get("fusion")) is not None:
        method = chosen(_FUSIONS, fusion.method, "fusion.method")
        request.fusion.CopyFrom(
            pb.Fusion(method=method, dense_weight=fusion.dense_weight, rrf_k=fusion.rrf_k, candidates=fusion.candidates)
        )
    if (diversity := given.get("diversity")) is not None:
        wanted = pb.Diversity(relevance_weight=diversity.relevance_weight, candidates=diversity.candidates)
        request.diversity.CopyFrom(wanted)
    if (grouping := given.get("grouping")) is not None:
        request.grouping.CopyFrom(pb.Grouping(hits_per_document_max=grouping.hits_per_document_max))
    if (reranking := given.get("reranking")) is not None:
        request.reranking.CopyFrom(pb.Reranking(model=reranking.model, candidates=reranking.candidates))
