"""How a search is carried out: where its page lies, how many candidates it needs, what is asked of the shards."""

from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from penstock.paging import key_after, page_token, unknown_token
from retrieval_svc.light import light
from retrieval_svc.search.calls import SearchCall, SearchMode
from retrieval_svc.search.checking import FUSION_CANDIDATES_MAX, POOL_MAX
from retrieval_svc.values import ShardQuery, Vector

FUSION_CANDIDATES: Final = 100
RERANKED_PER_HIT: Final = 5
DIVERSIFIED_PER_HIT: Final = 4
GROUPED_PER_HIT: Final = 2
GROUPED_MIN: Final = 50
GROWTH: Final = 4
"""How many times more candidates are fetched when those at hand have too few documents."""
_OFFSET_DIGITS_MAX: Final = 7


@light
class SearchPlan:
    """A search and how it is carried out.

    Its page is the ranking's hits (grouped: documents) from `offset` to before `end`; `needed` of them tell whether there is
    another page. `limit` candidates are asked of each side. `reranked` and `diversified` are the pools of those steps.

    Pools, and the candidates of a fusion, do not depend on the page: all pages are slices of one ranking, and end with it.
    Where a fused and grouped search has to look at more candidates for a later page, what they bring stands behind the others.
    """

    call: SearchCall
    offset: int
    end: int
    needed: int
    limit: int
    reranked: int = 0
    diversified: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the dense side, as the shards give it, is already the answer."""
        call = self.call
        return (
            self.with_chunks and call.reranking is None and call.grouping is None and call.score_min is None and not call.fields
        )

    @property
    def with_chunks(self) -> bool:
        """Whether the chunks had better come with the dense side than be fetched."""
        call = self.call
        return call.mode is SearchMode.DENSE and not self.offset and call.diversity is None and "vector" not in call.fields

    @property
    def may_grow(self) -> bool:
        """Whether more candidates may be asked for to find more documents: not where their number was said."""
        fixed = self.call.fusion and self.call.fusion.candidates
        return self._goes_beyond and not fixed and self.limit < FUSION_CANDIDATES_MAX

    @property
    def hits_per_document_max(self) -> int:
        """How many hits of one document are wanted, where hits are grouped."""
        return self.call.grouping.hits_per_document_max if self.call.grouping else 1

    @property
    def looks_further(self) -> bool:
        """Whether the documents that were found may have hits beyond the candidates."""
        return self._goes_beyond and self.hits_per_document_max > 1

    @property
    def _goes_beyond(self) -> bool:
        """Whether what is not among the candidates may be a hit: not of a pool, nor where a threshold is above its fused 0."""
        call = self.call
        if call.grouping is None or self.reranked or self.diversified:
            return False
        return call.mode is not SearchMode.HYBRID or call.score_min is None or call.score_min <= 0.0

    def grown(self) -> "SearchPlan":
        """The same search over more candidates."""
        return replace(self, limit=min(GROWTH * self.limit, FUSION_CANDIDATES_MAX))

    def query(self, vector: Vector | None) -> ShardQuery:
        """What is asked of the shards."""
        call = self.call
        return ShardQuery(
            vector=vector,
            text=call.text or "" if call.mode is not SearchMode.DENSE else "",
            limit=self.limit,
            filter=call.filter,
            visibility=call.visibility,
            ef_search=call.ef_search,
            nprobe=call.nprobe,
            exact=call.exact,
            with_chunks=self.with_chunks,
        )

    def further_query(self, vector: Vector | None, document_id: str) -> ShardQuery:
        """What is asked of the shards for one document's hits."""
        with_chunks = self.call.mode is SearchMode.DENSE
        return replace(self.query(vector), document_id=document_id, limit=self.hits_per_document_max, with_chunks=with_chunks)

    def next_page_token(self, uid: int, found: int) -> str:
        """The token of the next page, when as many hits (grouped: documents) were `found` in all."""
        if found <= self.end or self.needed == self.end:
            return ""
        return page_token(_listing(uid, self.call), str(self.end))


def planned(call: SearchCall, uid: int, top_k_max: int) -> SearchPlan:
    """How a search of the collection `uid` is carried out.

    Raises InvalidArgument for a page token that another search gave out, or none.
    """
    offset = _offset(call, uid, top_k_max) if call.page_token else 0
    end = min(offset + call.top_k, top_k_max)
    needed = min(end + 1, top_k_max)
    if not (call.reranking or call.diversity or call.grouping or call.mode is SearchMode.HYBRID):
        return SearchPlan(call=call, offset=offset, end=end, needed=needed, limit=needed)
    hits = call.top_k * (call.grouping.hits_per_document_max if call.grouping else 1)
    reranked = (call.reranking.candidates or min(RERANKED_PER_HIT * hits, POOL_MAX)) if call.reranking else 0
    diversified = (call.diversity.candidates or min(DIVERSIFIED_PER_HIT * hits, POOL_MAX)) if call.diversity else 0
    return SearchPlan(
        call=call,
        offset=offset,
        end=end,
        needed=needed,
        limit=_limit(call, reranked or diversified, needed),
        reranked=reranked,
        diversified=diversified,
    )


def _limit(call: SearchCall, pool: int, needed: int) -> int:
    if call.mode is SearchMode.HYBRID:
        given = call.fusion.candidates if call.fusion else None
        return given or min(max(FUSION_CANDIDATES, pool or call.top_k), FUSION_CANDIDATES_MAX)
    if pool or not call.grouping:
        return pool or needed
    return min(max(GROUPED_PER_HIT * call.grouping.hits_per_document_max * needed, GROUPED_MIN), FUSION_CANDIDATES_MAX)


def _offset(call: SearchCall, uid: int, top_k_max: int) -> int:
    key = key_after(_listing(uid, call), call.page_token)
    if not (key.isascii() and key.isdigit() and len(key) <= _OFFSET_DIGITS_MAX and 0 < int(key) < top_k_max):
        raise unknown_token()
    return int(key)


def _listing(uid: int, call: SearchCall) -> str:
    """The name of the ranking that the call's pages are slices of: a hash over all that the ranking depends on."""
    how = (
        call.top_k, call.mode, call.filter, call.fusion, call.score_min, call.diversity, call.grouping, call.reranking,
        call.ef_search, call.nprobe, call.exact,
    )  # fmt: skip
    digest = _digest(uid, how, call.visibility.principals).copy()
    digest.update(repr(call.text).encode())
    digest.update(call.vector or b"")
    return f"searches/{digest.hexdigest()}"


@lru_cache(maxsize=1024)
def _digest(uid: int, how: tuple[object, ...], principals: frozenset[str] | None) -> blake2b:
    """The hash of all but what is searched for, which is much the same from search to search. To be copied, never added to."""
    ranking = (uid, *how, principals and sorted(principals))
    return blake2b(repr(ranking).encode(), digest_size=12)
