"""From what the shards found to one page of a ranking: fuse -> rerank -> threshold -> diversify -> group."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from opentelemetry.trace import Tracer

from penstock import semconv
from penstock.tracing import inner_span
from retrieval_svc.search.calls import Fusion, SearchMode
from retrieval_svc.search.candidates import Candidates, joined
from retrieval_svc.search.chunk_parts import ChunkParts
from retrieval_svc.search.diversity import most_marginally_relevant, similarity_in
from retrieval_svc.search.further_hits import FurtherHits
from retrieval_svc.search.fusion import beyond, min_max, one_ranking
from retrieval_svc.search.gathering import NO_ROWS, FetchedRow, Gathered, Gatherer, chunks_of
from retrieval_svc.search.grouping import Groups, grouped
from retrieval_svc.search.planning import SearchPlan
from retrieval_svc.search.reranking import Reranking, reranking_named
from retrieval_svc.values import Collection, Matrix, Metric, Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """A page's rows, of a ranking in which `found` hits (grouped: documents) were found.

    `gone` rows vanished while the page was made: they were deleted or replaced.
    """

    rows: Candidates
    found: int
    gone: int
    missing_shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ranking:
    """Candidates in their final order; `groups` say which are of one document. `gone` ones vanished on the way."""

    rows: Candidates
    gone: int
    groups: Groups | None = None

    @property
    def found(self) -> int:
        """How many hits (grouped: documents) there are."""
        return len(self.rows) if self.groups is None else len(self.groups)

    def between(self, first: int, end: int) -> Candidates:
        """The hits (grouped: those of the documents) from `first` to before `end`."""
        return self.rows.take(slice(first, end) if self.groups is None else self.groups.between(first, end))


class Ranker:
    """Ranks what was gathered, and gathers more where that has too few documents."""

    def __init__(self, gatherer: Gatherer, codec: ChunkParts, rerankings: Mapping[str, Reranking], tracer: Tracer) -> None:
        self._gatherer = gatherer
        self._codec = codec
        self._rerankings = rerankings
        self._tracer = tracer
        self._further = FurtherHits(gatherer, codec)

    async def page(self, collection: Collection, plan: SearchPlan, vector: Vector | None, gathered: Gathered) -> Page:
        """The page that is asked for."""
        ranking = await self._ranking(collection, plan, gathered)
        while ranking.found < plan.needed and plan.may_grow and not _is_exhausted(gathered, plan):
            plan = plan.grown()
            [gathered] = await self._gatherer.gather(
                collection, [plan.query(vector)], at_least=plan.call.at_least, allow_partial=plan.call.allow_partial
            )
            ranking = await self._ranking(collection, plan, gathered, before=ranking)
        rows, missing = ranking.between(plan.offset, plan.end), gathered.missing_shards
        if plan.looks_further and not _is_exhausted(gathered, plan):
            rows, more_missing = await self._further.added(collection, plan, vector, rows)
            missing = tuple(sorted({*missing, *more_missing}))
        return Page(rows=rows, found=ranking.found, gone=ranking.gone, missing_shards=missing)

    async def _ranking(
        self, collection: Collection, plan: SearchPlan, gathered: Gathered, before: _Ranking | None = None
    ) -> _Ranking:
        """All steps in their order. `before` is the ranking of fewer candidates, which a fused one goes on."""
        call = plan.call
        rows, gone = self._fused(plan, gathered), 0
        if before is not None and call.mode is SearchMode.HYBRID:
            rows = joined([before.rows, beyond(before.rows, rows)])
        if call.reranking:
            pool = rows.take(slice(plan.reranked))
            rows = await self._reranked(collection, plan, pool)
            gone += len(pool) - len(rows)
        if call.score_min is not None:
            rows = rows.from_score(call.score_min)
        if call.diversity:
            pool = rows.take(slice(plan.diversified))
            rows, vanished = await self._diversified(collection, plan, pool)
            gone += vanished
        if not call.grouping:
            return _Ranking(rows=rows, gone=gone)
        here = await self._with_chunks(collection, rows)
        documents = [self._codec.document_id(chunk) for chunk in here.chunks.tolist()]
        groups = grouped(documents, plan.hits_per_document_max)
        return _Ranking(rows=here, gone=gone + len(rows) - len(here), groups=groups)

    def _fused(self, plan: SearchPlan, gathered: Gathered) -> Candidates:
        """One ranking of what the sides found."""
        call = plan.call
        if call.mode is not SearchMode.HYBRID:
            return one_ranking(call, gathered)
        with inner_span(self._tracer, "fusion") as span:
            rows = one_ranking(call, gathered)
            if span.is_recording():
                dense, lexical = gathered.dense or NO_ROWS, gathered.lexical or NO_ROWS
                span.set_attribute(semconv.PENSTOCK_FUSION_METHOD, (call.fusion or Fusion()).method.value)
                span.set_attribute(semconv.PENSTOCK_DENSE_COUNT, len(dense.scores))
                span.set_attribute(semconv.PENSTOCK_LEXICAL_COUNT, len(lexical.scores))
                span.set_attribute(semconv.PENSTOCK_CANDIDATE_COUNT, len(rows))
            return rows

    async def _reranked(self, collection: Collection, plan: SearchPlan, pool: Candidates) -> Candidates:
        pool = await self._with_chunks(collection, pool)
        if not len(pool) or not plan.call.reranking:
            return pool
        reranking = reranking_named(plan.call.reranking.model, self._rerankings)
        texts = [self._codec.text(chunk) for chunk in pool.chunks.tolist()]
        return pool.scored((await reranking.scores(plan.call.text or "", texts)).astype(np.float64))

    async def _diversified(self, collection: Collection, plan: SearchPlan, pool: Candidates) -> tuple[Candidates, int]:
        """The pool in the order of choice, and how many of its rows are gone.

        A dense ranking's scores and the similarity of candidates are both the metric's. The scores of other rankings are of
        another kind: they are brought to [0, 1] and weighed against cosines.
        """
        if not len(pool) or not (diversity := plan.call.diversity):
            return pool, 0
        fetched = await self._gatherer.fetch(collection, pool.shards, pool.sequences, with_vectors=True)
        here, vectors = _with_vectors(pool, fetched)
        count = len(here) if plan.call.grouping else plan.needed
        is_dense = plan.call.mode is SearchMode.DENSE and not plan.call.reranking
        metric = collection.spec.metric if is_dense else Metric.COSINE
        relevance = here.scores if is_dense else min_max(here.scores)
        with inner_span(self._tracer, "mmr") as span:
            if span.is_recording():
                span.set_attribute(semconv.PENSTOCK_CANDIDATE_COUNT, len(here))
                span.set_attribute(semconv.PENSTOCK_HIT_COUNT, min(count, len(here)))
            # Milliseconds for the largest pools, which the event loop has not to spare.
            places = await asyncio.to_thread(
                lambda: most_marginally_relevant(relevance, similarity_in(metric, vectors), diversity.relevance_weight, count)
            )
        return here.take(places), len(pool) - len(here)

    async def _with_chunks(self, collection: Collection, rows: Candidates) -> Candidates:
        """The rows with their chunks, without those that are gone."""
        if rows.have_chunks:
            return rows
        fetched = await self._gatherer.fetch(collection, rows.shards, rows.sequences, with_vectors=False)
        return rows.with_chunks(chunks_of(fetched))


def _with_vectors(rows: Candidates, fetched: Sequence[FetchedRow | None]) -> tuple[Candidates, Matrix]:
    """The rows that are there yet, with their chunks, and their vectors."""
    here = rows.with_chunks(chunks_of(fetched))
    vectors = [row.vector for row in fetched if row is not None and row.vector is not None]
    return here, np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


def _is_exhausted(gathered: Gathered, plan: SearchPlan) -> bool:
    """Whether there are no more candidates than those at hand."""
    sides = [side for side in (gathered.dense, gathered.lexical) if side is not None]
    return all(len(side.scores) < plan.limit for side in sides)
