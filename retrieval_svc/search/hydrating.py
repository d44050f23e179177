"""From the rows of pages to what callers get: their chunks, and of those the parts that were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_svc.search.calls import SearchMode, SearchResult
from retrieval_svc.search.candidates import Candidates
from retrieval_svc.search.chunk_parts import ChunkParts
from retrieval_svc.search.gathering import NO_ROWS, FetchedRow, Gathered, GatheredRows, Gatherer, chunks_of
from retrieval_svc.search.planning import SearchPlan
from retrieval_svc.search.ranking import Page
from retrieval_svc.values import Collection

Fetched = list[FetchedRow | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hydrated:
    """An answer. It `is_short` of hits when rows vanished that would have been among them."""

    result: SearchResult
    is_short: bool


def plain_result(uid: int, plan: SearchPlan, gathered: Gathered) -> SearchResult:
    """The answer of a plain search: what the shards gave."""
    rows: GatheredRows = gathered.dense or NO_ROWS
    return SearchResult(
        chunks=rows.chunks[: plan.end],
        scores=rows.scores[: plan.end],
        next_page_token=plan.next_page_token(uid, len(rows.chunks)),
        missing_shards=gathered.missing_shards,
    )


class Hydrator:
    """Makes answers of pages, reading what their chunks lack: one call for all pages that want vectors, one for the others."""

    def __init__(self, gatherer: Gatherer, codec: ChunkParts) -> None:
        self._gatherer = gatherer
        self._codec = codec

    async def results(self, collection: Collection, plans: Sequence[SearchPlan], pages: Sequence[Page]) -> list[Hydrated]:
        """The answer of each page."""
        fetched: dict[int, Fetched] = {}
        for with_vectors in (False, True):
            places = [
                at
                for at, (plan, page) in enumerate(zip(plans, pages, strict=True))
                if ("vector" in plan.call.fields) is with_vectors and (with_vectors or not page.rows.have_chunks)
            ]
            fetched.update(await self._fetched(collection, {at: pages[at].rows for at in places}, with_vectors=with_vectors))
        return [
            self._hydrated(collection.uid, plan, page, fetched.get(at))
            for at, (plan, page) in enumerate(zip(plans, pages, strict=True))
        ]

    async def _fetched(self, collection: Collection, pages: dict[int, Candidates], *, with_vectors: bool) -> dict[int, Fetched]:
        if not any(map(len, pages.values())):
            return {at: [] for at in pages}
        shards = np.concatenate([rows.shards for rows in pages.values()])
        sequences = np.concatenate([rows.sequences for rows in pages.values()])
        fetched = await self._gatherer.fetch(collection, shards, sequences, with_vectors=with_vectors)
        ends = np.cumsum([len(rows) for rows in pages.values()]).tolist()
        return {at: fetched[end - len(rows) : end] for (at, rows), end in zip(pages.items(), ends, strict=True)}

    def _hydrated(self, uid: int, plan: SearchPlan, page: Page, fetched: Fetched | None) -> Hydrated:
        call, rows = plan.call, page.rows
        if fetched is not None:
            rows = rows.with_chunks(chunks_of(fetched))
        chunks: list[bytes] = rows.chunks.tolist()
        if call.fields:
            vectors = [row.vector for row in fetched if row] if fetched is not None else [None] * len(chunks)
            chunks = [self._codec.select(chunk, call.fields, vector) for chunk, vector in zip(chunks, vectors, strict=True)]
        sides = call.mode is SearchMode.HYBRID or call.reranking is not None
        result = SearchResult(
            chunks=chunks,
            scores=rows.scores.astype(np.float32),
            dense_scores=rows.dense_scores.astype(np.float32) if sides else None,
            lexical_scores=rows.lexical_scores.astype(np.float32) if sides else None,
            next_page_token=plan.next_page_token(uid, page.found),
            missing_shards=page.missing_shards,
        )
        vanished = len(rows) < len(page.rows) or (page.gone > 0 and page.found < plan.needed)
        return Hydrated(result=result, is_short=vanished)
