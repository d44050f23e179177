"""Reranking: the worker around a reranker, and searches that go through it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from penstock.errors import InvalidArgument, ModelNotFound, Overloaded
from retrieval_svc.search.calls import Diversity, Grouping, Reranking, SearchCall, SearchMode
from retrieval_svc.search.reranking import Pair, PairScores, reranking_named
from retrieval_svc.search.reranking import Reranking as Rerankings
from tests.retrieval_svc.search.fakes import TOPICS, Bench, bench, chunk_ids, many_rows
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids


def true_score(query: str, text: str) -> float:
    """The number at the end of the text, counted down by one query and up by others."""
    number = float(text.rpartition("n")[2])
    return -number if query == "down" else number


class NumberReranker:
    """Scores by true_score. Waits for `gate` where there is one."""

    def __init__(self, name: str = "numbers") -> None:
        self.name = name
        self.passes: list[list[Pair]] = []
        self.gate: threading.Event | None = None

    def score(self, pairs: Sequence[Pair]) -> PairScores:
        self.passes.append(list(pairs))
        if self.gate:
            self.gate.wait(10)
        return np.array([true_score(*pair) for pair in pairs], dtype=np.float32)


@asynccontextmanager
async def running(*rerankers: NumberReranker, waiting_max: int = 8) -> AsyncIterator[dict[str, Rerankings]]:
    loaded = {each.name: Rerankings(each, tracer=NoOpTracer(), batch_max=4, waiting_max=waiting_max) for each in rerankers}
    yield loaded
    for each in loaded.values():
        await each.close()


def number_of(chunk_id: str) -> int:
    return int(chunk_id.removeprefix("c"))


async def test_the_scores_are_those_of_each_text_whatever_its_length() -> None:
    texts = [f"{'word ' * (37 * number % 11)}n{number}" for number in range(50)]
    async with running(reranker := NumberReranker()) as loaded:
        scores = await loaded["numbers"].scores("up", texts)
    assert scores.tolist() == list(range(50))
    assert [len(pairs) for pairs in reranker.passes] == [16, 16, 16, 2]


async def test_requests_that_wait_share_a_pass_and_keep_their_own_scores() -> None:
    reranker = NumberReranker()
    reranker.gate = threading.Event()
    async with running(reranker) as loaded:
        first = asyncio.create_task(loaded["numbers"].scores("up", ["n5"]))
        while not reranker.passes:
            await asyncio.sleep(0.001)
        queries = {"a": ["n1", "n2"], "down": ["n7", "n8"], "c": ["n4"]}
        waiting = [asyncio.create_task(loaded["numbers"].scores(query, texts)) for query, texts in queries.items()]
        await asyncio.sleep(0)
        reranker.gate.set()
        assert [(await each).tolist() for each in (first, *waiting)] == [[5], [1, 2], [-7, -8], [4]]
    assert [len(pairs) for pairs in reranker.passes] == [1, 5]


async def test_over_the_queues_bound_requests_are_turned_away_at_once_and_none_half_way() -> None:
    reranker = NumberReranker()
    reranker.gate = threading.Event()
    async with running(reranker, waiting_max=2) as loaded:
        first = asyncio.create_task(loaded["numbers"].scores("up", [f"n{number}" for number in range(40)]))
        while not reranker.passes:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(loaded["numbers"].scores("up", ["n1"])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await loaded["numbers"].scores("up", ["n1"])
        reranker.gate.set()
        assert (await first).tolist() == list(range(40))
        assert [(await each).tolist() for each in others] == [[1], [1]]


async def test_a_reranker_that_fails_fails_its_requests_and_lives() -> None:
    async with running(NumberReranker()) as loaded:
        with pytest.raises(ValueError, match="could not convert"):
            await loaded["numbers"].scores("up", ["no number"])
        assert (await loaded["numbers"].scores("up", ["n3"])).tolist() == [3]


async def test_no_texts_have_no_scores() -> None:
    async with running(NumberReranker()) as loaded:
        assert (await loaded["numbers"].scores("up", [])).tolist() == []


async def test_of_several_rerankers_one_is_named() -> None:
    async with running(NumberReranker("a"), NumberReranker("b")) as loaded:
        assert reranking_named("b", loaded).name == "b"
        with pytest.raises(InvalidArgument, match="a, b"):
            reranking_named("", loaded)
        with pytest.raises(ModelNotFound, match="'c'"):
            reranking_named("c", loaded)


@pytest.mark.parametrize("mode", SearchMode)
async def test_the_candidates_of_a_search_come_in_the_order_of_the_rerankers_scores(mode: SearchMode) -> None:
    async with running(NumberReranker()) as loaded:
        on = bench(many_rows(90), rerankings=loaded)
        first = await on.run(SearchCall(text=" ".join(TOPICS), mode=mode, top_k=40))
        result = await on.run(SearchCall(text=" ".join(TOPICS), mode=mode, top_k=8, reranking=Reranking()))
    expected = sorted(map(number_of, chunk_ids(first)), reverse=True)[:8]
    assert list(map(number_of, chunk_ids(result))) == expected
    assert result.scores.tolist() == expected


async def reranked(on: Bench, **parts: object) -> list[int]:
    call = SearchCall(text="down", vector=RAW, top_k=6, reranking=Reranking(candidates=30), **parts)  # type: ignore[arg-type]
    return [number_of(each) for each in await on.ids(call)]


async def test_a_reranked_dense_search_may_bring_a_vector_and_tells_its_dense_score() -> None:
    async with running(NumberReranker()) as loaded:
        on = bench(many_rows(90), rerankings=loaded)
        pool = sorted(map(number_of, dense_ids(on)[:30]))
        assert await reranked(on) == pool[:6]
        call = SearchCall(text="down", vector=RAW, top_k=6, reranking=Reranking(candidates=30))
        result = await on.run(call)
    dense = {each.chunk.id: score for score, each in on.gatherer.dense(VECTOR)}
    assert result.dense_scores is not None
    assert result.lexical_scores is not None
    assert result.dense_scores.tolist() == pytest.approx([dense[each] for each in chunk_ids(result)], rel=1e-5)
    assert np.isnan(result.lexical_scores).all()


async def test_threshold_grouping_and_diversity_work_on_the_rerankers_scores() -> None:
    async with running(NumberReranker()) as loaded:
        on = bench(many_rows(90, documents=9), rerankings=loaded)
        pool = sorted(map(number_of, dense_ids(on)[:30]))
        assert await reranked(on, score_min=-float(pool[3])) == pool[:4]
        documents = {number_of(each.chunk.id): each.chunk.document_id for each in on.gatherer.rows}
        first_of_each = {documents[number]: number for number in reversed(pool)}
        assert await reranked(on, grouping=Grouping()) == sorted(first_of_each.values())[:6]
        assert await reranked(on, diversity=Diversity(relevance_weight=1)) == pool[:6]
        assert (await reranked(on, diversity=Diversity(relevance_weight=0.2)))[0] == pool[0]
        assert await reranked(on, diversity=Diversity(relevance_weight=0.2)) != pool[:6]
