"""From what the shards found to one page of a ranking: fuse -> rerank -> threshold -> diversify -> group."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from opentelemetry.trace import Tracer

from penstock import semconv
from penstock.tracing import inner_span
from retrieval_svc.search.calls import Fusion, SearchMode
from retrieval_svc.search.candidates import Candidates, dense_candidates, lexical_candidates
from retrieval_svc.search.chunk_parts import ChunkParts
from retrieval_svc.search.diversity import most_marginally_relevant, similarity_in
from retrieval_svc.search.fusion import fused, min_max
from retrieval_svc.search.gathering import FetchedRow, Gathered, GatheredRows, Gatherer
from retrieval_svc.search.grouping import grouped
from retrieval_svc.search.planning import SearchPlan
from retrieval_svc.search.reranking import Reranking, reranking_named
from retrieval_svc.values import Collection, Matrix, Metric, Vector

NO_ROWS = GatheredRows(scores=np.empty(0, np.float32), shards=np.empty(0, np.int32), sequences=np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """A page's rows, of a ranking in which `found` hits (grouped: documents) were found.

    `gone` rows vanished while the page was made: they were deleted or replaced.
    """

    rows: Candidates
    found: int
    gone: int
    missing_shards: tuple[int, ...]


class Ranker:
    """Ranks what was gathered, and gathers more where that has too few documents."""

    def __init__(self, gatherer: Gatherer, codec: ChunkParts, rerankings: Mapping[str, Reranking], tracer: Tracer) -> None:
        self._gatherer = gatherer
        self._codec = codec
        self._rerankings = rerankings
        self._tracer = tracer

    async def page(self, collection: Collection, plan: SearchPlan, vector: Vector | None, gathered: Gathered) -> Page:
        """The page that is asked for."""
        page = await self._page(collection, plan, gathered)
        while page.found < plan.needed and plan.may_grow and not _is_exhausted(gathered, plan):
            plan = plan.grown()
            [gathered] = await self._gatherer.gather(
                collection, [plan.query(vector)], at_least=plan.call.at_least, allow_partial=plan.call.allow_partial
            )
            page = await self._page(collection, plan, gathered)
        return page

    async def _page(self, collection: Collection, plan: SearchPlan, gathered: Gathered) -> Page:
        call = plan.call
        rows, gone = self._fused(plan, gathered), 0
        if call.reranking:
            pool = rows.take(slice(plan.reranked))
            rows = await self._reranked(collection, plan, pool)
            gone += len(pool) - len(rows)
        if call.score_min is not None:  # Compared in the precision that callers see.
            rows = rows.take(np.flatnonzero(rows.scores.astype(np.float32) >= np.float32(call.score_min)))
        if call.diversity:
            pool = rows.take(slice(plan.diversified))
            rows, vanished = await self._diversified(collection, plan, pool)
            gone += vanished
        if call.grouping:
            return await self._grouped(collection, plan, rows, gone, gathered)
        page = rows.take(slice(plan.offset, plan.end))
        return Page(rows=page, found=len(rows), gone=gone, missing_shards=gathered.missing_shards)

    def _fused(self, plan: SearchPlan, gathered: Gathered) -> Candidates:
        """One ranking of what the sides found."""
        dense, lexical = gathered.dense or NO_ROWS, gathered.lexical or NO_ROWS
        match plan.call.mode:
            case SearchMode.DENSE:
                return dense_candidates(dense)
            case SearchMode.LEXICAL:
                return lexical_candidates(lexical)
            case SearchMode.HYBRID:
                fusion = plan.call.fusion or Fusion()
                with inner_span(self._tracer, "fusion") as span:
                    rows = fused(dense_candidates(dense), lexical_candidates(lexical), fusion)
                    if span.is_recording():
                        span.set_attribute(semconv.PENSTOCK_FUSION_METHOD, fusion.method.value)
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

    async def _grouped(self, collection: Collection, plan: SearchPlan, rows: Candidates, gone: int, gathered: Gathered) -> Page:
        """The page's documents. A document's hits are those of its chunks that are among the candidates."""
        here = await self._with_chunks(collection, rows)
        hits_max = plan.call.grouping.hits_per_document_max if plan.call.grouping else 1
        groups = grouped([self._codec.document_id(chunk) for chunk in here.chunks.tolist()], hits_max)
        return Page(
            rows=here.take(groups.between(plan.offset, plan.end)),
            found=len(groups),
            gone=gone + len(rows) - len(here),
            missing_shards=gathered.missing_shards,
        )

    async def _with_chunks(self, collection: Collection, rows: Candidates) -> Candidates:
        """The rows with their chunks, without those that are gone."""
        if rows.have_chunks:
            return rows
        fetched = await self._gatherer.fetch(collection, rows.shards, rows.sequences, with_vectors=False)
        return rows.with_chunks(chunks_of(fetched))


def chunks_of(fetched: Sequence[FetchedRow | None]) -> list[bytes | None]:
    """The chunks of rows that were read; None for those that are gone."""
    return [None if row is None else row.chunk for row in fetched]


def _with_vectors(rows: Candidates, fetched: Sequence[FetchedRow | None]) -> tuple[Candidates, Matrix]:
    """The rows that are there yet, with their chunks, and their vectors."""
    here = rows.with_chunks(chunks_of(fetched))
    vectors = [row.vector for row in fetched if row is not None and row.vector is not None]
    return here, np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


def _is_exhausted(gathered: Gathered, plan: SearchPlan) -> bool:
    """Whether there are no more candidates than those at hand."""
    sides = [side for side in (gathered.dense, gathered.lexical) if side is not None]
    return all(len(side.scores) < plan.limit for side in sides)
