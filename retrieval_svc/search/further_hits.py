"""The hits of a grouped search's documents beyond the candidates by which the documents were chosen.

A document with many chunks is chosen for its best, and the next ones may stand far behind those of other documents. So every
document of the page that is short of hits is asked for its own best, all documents in one call. What that costs is bounded by
the hits of a page; which documents are found, and where, it does not change.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from retrieval_svc.search.calls import SearchMode
from retrieval_svc.search.candidates import Candidates, chunk_column, joined
from retrieval_svc.search.chunk_parts import ChunkParts
from retrieval_svc.search.fusion import beyond, one_ranking
from retrieval_svc.search.gathering import Gathered, Gatherer, chunks_of
from retrieval_svc.search.grouping import grouped
from retrieval_svc.search.planning import SearchPlan
from retrieval_svc.values import Collection, Vector

FURTHER_HITS_MAX: Final = 10_000
"""Most rows that are asked for on behalf of one page. Documents beyond, the last ones of a page, are left as they are."""


class FurtherHits:
    """Completes the documents of a page."""

    def __init__(self, gatherer: Gatherer, codec: ChunkParts) -> None:
        self._gatherer = gatherer
        self._codec = codec

    async def added(
        self, collection: Collection, plan: SearchPlan, vector: Vector | None, page: Candidates
    ) -> tuple[Candidates, tuple[int, ...]]:
        """The page with the best hits of each document, and the shards that did not answer. The page's chunks are read."""
        hits_max, counts = plan.hits_per_document_max, Counter(self._documents(page))
        short = [document_id for document_id, count in counts.items() if document_id and count < hits_max]
        short = short[: FURTHER_HITS_MAX // hits_max]
        if not short:
            return page, ()
        gathered = await self._gatherer.gather(
            collection,
            [plan.further_query(vector, document_id) for document_id in short],
            at_least=plan.call.at_least,
            allow_partial=plan.call.allow_partial,
        )
        further = await self._read(collection, short, [_further(plan, page, each) for each in gathered])
        together = self._newest(joined([page, further]))
        together = together.scored(together.scores)
        groups = grouped(self._documents(together), hits_max)
        missing = {shard for each in gathered for shard in each.missing_shards}
        return together.take(groups.between(0, len(groups))), tuple(sorted(missing))

    async def _read(self, collection: Collection, document_ids: Sequence[str], found: Sequence[Candidates]) -> Candidates:
        """What was found for the documents, with its chunks.

        A row that is gone meanwhile keeps its place: so it is missed when the page is hydrated, and the search begins again.
        Rows of other documents come from a node that does not know yet that it can be asked for one.
        """
        rows = joined(found)
        if not rows.have_chunks:
            fetched = await self._gatherer.fetch(collection, rows.shards, rows.sequences, with_vectors=False)
            rows = replace(rows, chunks=chunk_column(chunks_of(fetched)))
        wanted = np.repeat(np.array(document_ids, object), [len(each) for each in found])
        theirs = [
            chunk is None or self._codec.document_id(chunk) == document_id
            for chunk, document_id in zip(rows.chunks.tolist(), wanted, strict=True)
        ]
        return rows.take(np.flatnonzero(theirs))

    def _newest(self, rows: Candidates) -> Candidates:
        """Without the older version of a chunk that was replaced between the two searches."""
        newest: dict[str | int, int] = {}
        chunks = rows.chunks.tolist()
        for place in np.argsort(rows.sequences, kind="stable").tolist():
            newest[place if chunks[place] is None else self._codec.chunk_id(chunks[place])] = place
        return rows.take(np.sort(np.array(list(newest.values()), np.intp)))

    def _documents(self, rows: Candidates) -> list[str]:
        return ["" if chunk is None else self._codec.document_id(chunk) for chunk in rows.chunks.tolist()]


def _further(plan: SearchPlan, page: Candidates, gathered: Gathered) -> Candidates:
    """What was found for a document and is not on the page yet."""
    found = one_ranking(plan.call, gathered)
    rows = beyond(page, found) if plan.call.mode is SearchMode.HYBRID else found.without(page)
    return rows if plan.call.score_min is None else rows.from_score(plan.call.score_min)
