"""What a search asks for and what it gives, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import Filter
from retrieval_svc.light import light
from retrieval_svc.values import EVERYTHING, Visibility


class SearchMode(Enum):
    """What is searched: vectors, words, or both."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


class FusionMethod(Enum):
    """How a hybrid search makes one ranking of two."""

    CONVEX = "convex"
    RECIPROCAL_RANK = "reciprocal_rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How a hybrid search is fused; the lexical side's weight is what `dense_weight` leaves. `candidates` of each side."""

    method: FusionMethod = FusionMethod.CONVEX
    dense_weight: float = 0.5
    rrf_k: int = 60
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Maximal marginal relevance: the weight of nearness against newness, and how many candidates are chosen from."""

    relevance_weight: float = 0.5
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Hits together by document, the best ones of each; top_k then counts documents."""

    hits_per_document_max: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """Candidates scored again by a cross-encoder. Empty `model`: the only one that is loaded."""

    model: str = ""
    candidates: int | None = None


@light
class SearchCall:
    """One search. `vector` is little-endian float32; `at_least` has the position that each shard must have reached.

    `ef_search` and `nprobe` are left aside by an index that has no use for them, for what kind a collection has may change.
    `fields` are parts of a chunk that the codec knows; none: all that a chunk is kept with. `visibility` is whose eyes it has.
    """

    text: str | None = None
    vector: bytes | None = None
    top_k: int = 10
    mode: SearchMode = SearchMode.DENSE
    filter: Filter | None = None
    fusion: Fusion | None = None
    score_min: float | None = None
    diversity: Diversity | None = None
    grouping: Grouping | None = None
    reranking: Reranking | None = None
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    fields: tuple[str, ...] = ()
    page_token: str = ""
    at_least: Mapping[int, int] = field(default_factory=dict)
    allow_partial: bool = False
    visibility: Visibility = EVERYTHING

    @property
    def is_ordinary(self) -> bool:
        """Whether it is by a vector alone, waits for nothing and asks the shards once: it holds up no other."""
        return (
            self.vector is not None
            and self.text is None
            and self.filter is None
            and self.reranking is None
            and self.grouping is None
            and self.diversity is None
            and not self.at_least
            and not self.allow_partial
        )


@light
class SearchResult:
    """Hits, best first, as columns of equal length: encoded chunks and scores.

    `dense_scores` and `lexical_scores` are there for hybrid and reranked searches, NaN where a hit has none.
    """

    chunks: Sequence[bytes]
    scores: NDArray[np.float32]
    dense_scores: NDArray[np.float32] | None = None
    lexical_scores: NDArray[np.float32] | None = None
    next_page_token: str = ""
    missing_shards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """How much a search may ask for. `top_k_max` bounds the hits (grouped: the documents) of all its pages together.

    Of single searches that wait, at most `group_max` go on together; beyond `waiting_max` the next is refused.
    """

    top_k_max: int
    query_text_bytes_max: int
    group_max: int = 64
    waiting_max: int = 1024
