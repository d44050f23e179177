"""Searches: check -> embed -> gather -> rank -> hydrate. Batches throughout: a single search is a batch of one.

A plain dense search, which most are, is answered with the very bytes that the shards gave.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from opentelemetry.trace import Tracer, get_current_span

from penstock.errors import CollectionNotFound, PenstockError
from retrieval_svc import checks
from retrieval_svc.search.calls import SearchCall, SearchLimits, SearchMode, SearchResult
from retrieval_svc.search.checking import check_call, check_count, in_batch
from retrieval_svc.search.chunk_parts import ChunkParts
from retrieval_svc.search.gathering import Gathered, Gatherer
from retrieval_svc.search.hydrating import Hydrator, plain_result
from retrieval_svc.search.planning import SearchPlan, planned
from retrieval_svc.search.ranking import Page, Ranker
from retrieval_svc.search.reranking import Reranking, reranking_named
from retrieval_svc.search.telemetry import capture, describe_calls, describe_results, started
from retrieval_svc.search.together import Together
from retrieval_svc.values import Collection, CollectionSpec, Matrix, Vector

_ATTEMPTS_MAX: Final = 3
"""Times that a search begins again because rows that it found were replaced under it."""


class TextEmbeddings(Protocol):
    """A model that embeds searches' texts."""

    async def queries(self, texts: Sequence[str]) -> Matrix:
        """One vector a text. Raises Overloaded when too many wait."""
        ...


class Collections(Protocol):
    """What is known of collections."""

    def is_open(self, collection: Collection) -> bool:
        """Whether the collection still exists."""
        ...

    def embeddings_for(self, spec: CollectionSpec) -> TextEmbeddings:
        """What embeds texts for a collection. Raises FailedPrecondition where nothing does, EmbeddingMismatch."""
        ...


class Search:
    """Finds chunks. `rerankings` are the loaded ones by name; `capture_content` says whether texts may stand in spans."""

    def __init__(
        self,
        collections: Collections,
        gatherer: Gatherer,
        codec: ChunkParts,
        *,
        rerankings: Mapping[str, Reranking],
        limits: SearchLimits,
        tracer: Tracer,
        capture_content: bool,
    ) -> None:
        self._collections = collections
        self._gatherer = gatherer
        self._codec = codec
        self._rerankings = rerankings
        self._limits = limits
        self._tracer = tracer
        self._capture_content = capture_content
        self._ranker = Ranker(gatherer, codec, rerankings, tracer)
        self._hydrator = Hydrator(gatherer, codec)
        answer_all = partial(self._search, is_batch=False)
        self._together = Together(answer_all, group_max=limits.group_max, waiting_max=limits.waiting_max)

    async def search(self, collection: Collection, call: SearchCall) -> SearchResult:
        """The hits of one search, best first; all there are when there are fewer than asked for."""
        if call.is_ordinary and not get_current_span().is_recording():
            return await self._together.search(collection, call)
        return (await self._search(collection, [call], is_batch=False))[0]

    async def search_many(self, collection: Collection, calls: Sequence[SearchCall]) -> list[SearchResult]:
        """The hits of each search. A fault of one is told with its place, and none is carried out."""
        check_count(len(calls))
        return await self._search(collection, calls, is_batch=True)

    async def _search(self, collection: Collection, calls: Sequence[SearchCall], *, is_batch: bool) -> list[SearchResult]:
        with started(self._tracer, collection.spec.id) as span:
            if span.is_recording():
                describe_calls(span, collection.spec.id, calls)
            plans = self._plans(collection, calls, is_batch=is_batch)
            try:
                vectors = await self._vectors(collection.spec, calls, is_batch=is_batch)
                results = await self._results(collection, plans, vectors)
            except PenstockError as error:
                self._refuse_if_deleted(collection, error)
                raise
            self._refuse_if_deleted(collection)
            if span.is_recording():
                describe_results(span, results)
                if self._capture_content and len(calls) == 1:
                    capture(span, calls[0], results[0], self._codec)
            return results

    def _refuse_if_deleted(self, collection: Collection, cause: PenstockError | None = None) -> None:
        """Whatever a search of a collection found or failed at while that was deleted: it is no longer there."""
        if not self._collections.is_open(collection):
            message = f"the collection {collection.spec.id!r} was deleted while it was searched"
            raise CollectionNotFound(message, metadata={"collection": collection.spec.id}) from cause

    def _plans(self, collection: Collection, calls: Sequence[SearchCall], *, is_batch: bool) -> list[SearchPlan]:
        plans = []
        for at, call in enumerate(calls):
            try:
                check_call(call, collection.spec, self._limits)
                if call.reranking:
                    reranking_named(call.reranking.model, self._rerankings)
                plans.append(planned(call, collection.uid, self._limits.top_k_max))
            except PenstockError as error:
                raise in_batch(error, at) if is_batch else error  # noqa: B904  # The same error, said of its batch.
        return plans

    async def _vectors(self, spec: CollectionSpec, calls: Sequence[SearchCall], *, is_batch: bool) -> list[Vector | None]:
        """The vector that each call searches with: its own, or its text's; None for a lexical search."""
        vectors: list[Vector | None] = [None] * len(calls)
        given = [at for at, call in enumerate(calls) if call.vector is not None]
        if given:
            names = [f"requests[{at}].vector" if is_batch else "vector" for at in given]
            raw = [calls[at].vector or b"" for at in given]
            matrix = checks.vectors(raw, names, dimension=spec.dimension, metric=spec.metric)
            for at, vector in zip(given, matrix, strict=True):
                vectors[at] = vector
        texts = {at: call.text for at, call in enumerate(calls) if vectors[at] is None and call.mode is not SearchMode.LEXICAL}
        if texts:
            embedded = await self._collections.embeddings_for(spec).queries([text or "" for text in texts.values()])
            for at, vector in zip(texts, embedded, strict=True):
                vectors[at] = vector
        return vectors

    async def _results(
        self,
        collection: Collection,
        plans: Sequence[SearchPlan],
        vectors: Sequence[Vector | None],
        attempts: int = _ATTEMPTS_MAX,
    ) -> list[SearchResult]:
        """The answers. Searches that lack hits because rows vanished under them begin again, a bounded number of times."""
        gathered = await self._gather(collection, plans, vectors)
        answers = {at: plain_result(collection.uid, plan, gathered[at]) for at, plan in enumerate(plans) if plan.is_plain}
        places = [at for at in range(len(plans)) if at not in answers]
        if places:
            pages = await _all([self._ranker.page(collection, plans[at], vectors[at], gathered[at]) for at in places])
            hydrated = await self._hydrator.results(collection, [plans[at] for at in places], pages)
            answers.update((at, each.result) for at, each in zip(places, hydrated, strict=True))
            short = [at for at, each in zip(places, hydrated, strict=True) if each.is_short]
            if short and attempts > 1:
                again = await self._results(
                    collection, [plans[at] for at in short], [vectors[at] for at in short], attempts - 1
                )
                answers.update(zip(short, again, strict=True))
        return [answers[at] for at in range(len(plans))]

    async def _gather(
        self, collection: Collection, plans: Sequence[SearchPlan], vectors: Sequence[Vector | None]
    ) -> list[Gathered]:
        """What the shards found for each. One call for all that wait for the same positions, which nearly always are all."""
        gathered: dict[int, Gathered] = {}
        waiting = list(range(len(plans)))
        while waiting:
            call = plans[waiting[0]].call
            alike = [at for at in waiting if _waits_alike(plans[at].call, call)]
            queries = [plans[at].query(vectors[at]) for at in alike]
            found = await self._gatherer.gather(collection, queries, at_least=call.at_least, allow_partial=call.allow_partial)
            gathered.update(zip(alike, found, strict=True))
            waiting = [at for at in waiting if at not in gathered]
        return [gathered[at] for at in range(len(plans))]


def _waits_alike(one: SearchCall, other: SearchCall) -> bool:
    return one.at_least == other.at_least and one.allow_partial == other.allow_partial


async def _all(pages: Sequence[Coroutine[None, None, Page]]) -> list[Page]:
    """The pages, made at the same time. The first that fails ends the others."""
    if len(pages) == 1:
        return [await pages[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(page) for page in pages]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
