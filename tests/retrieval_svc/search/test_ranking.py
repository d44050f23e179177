"""Threshold, diversity, grouping and fields against plain references."""

import asyncio

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_svc.search.calls import Diversity, Grouping, SearchCall, SearchMode
from retrieval_svc.values import Metric
from tests.retrieval_svc.search.fakes import Bench, bench, chunk_ids, many_rows, nearness, row
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids, document_ids


async def test_hits_below_the_threshold_are_left_out_and_one_at_it_stays() -> None:
    on = bench(many_rows(40))
    scores = (await on.run(SearchCall(vector=RAW, top_k=40))).scores
    result = await on.run(SearchCall(vector=RAW, top_k=40, score_min=float(scores[5])))
    assert chunk_ids(result) == dense_ids(on)[:6]
    assert result.next_page_token == ""


def mmr_reference(
    on: Bench, pool: list[str], relevance: list[float], *, metric: Metric, weight: float, count: int
) -> list[str]:
    vectors = {each.chunk.id: each.vector for each in on.gatherer.rows}
    chosen = [0]
    while len(chosen) < min(count, len(pool)):
        left = [place for place in range(len(pool)) if place not in chosen]
        gains = [
            weight * relevance[place]
            - (1 - weight) * max(nearness(metric, vectors[pool[place]], vectors[pool[other]]) for other in chosen)
            for place in left
        ]
        chosen.append(left[int(np.argmax(gains))])
    return [pool[place] for place in chosen]


@pytest.mark.parametrize("metric", Metric)
async def test_diversity_chooses_among_four_times_the_hits_by_the_metric(metric: Metric) -> None:
    on = bench(many_rows(80), metric=metric)
    result = await on.run(SearchCall(vector=RAW, top_k=6, diversity=Diversity(relevance_weight=0.4)))
    pool = on.gatherer.dense(VECTOR)[:24]
    relevance = [float(np.float32(score)) for score, _ in pool]
    expected = mmr_reference(on, [each.chunk.id for _, each in pool], relevance, metric=metric, weight=0.4, count=6)
    assert chunk_ids(result) == expected
    by_id = {each.chunk.id: score for score, each in pool}
    assert result.scores.tolist() == pytest.approx([by_id[name] for name in expected], rel=1e-5)
    assert on.gatherer.fetches == [(24, True)]


async def test_diversity_of_a_fused_ranking_weighs_normalised_scores_against_cosines() -> None:
    on = bench(many_rows(80), metric=Metric.INNER_PRODUCT)
    call = SearchCall(text="canal lock", mode=SearchMode.HYBRID, top_k=5, diversity=Diversity(candidates=15))
    pool = await on.run(SearchCall(text="canal lock", mode=SearchMode.HYBRID, top_k=15))
    scores = pool.scores.astype(np.float64)
    relevance = ((scores - scores.min()) / (scores.max() - scores.min())).tolist()
    assert await on.ids(call) == mmr_reference(on, chunk_ids(pool), relevance, metric=Metric.COSINE, weight=0.5, count=5)


def grouping_reference(on: Bench, documents: int, hits_max: int, ranked: list[str]) -> list[str]:
    document_of = {each.chunk.id: each.chunk.document_id or each.chunk.id for each in on.gatherer.rows}
    groups: dict[str, list[str]] = {}
    for name in ranked:
        groups.setdefault(document_of[name], []).append(name)
    return [name for group in list(groups.values())[:documents] for name in group[:hits_max]]


@settings(max_examples=30, deadline=None)
@given(documents=st.integers(1, 12), top_k=st.integers(1, 15), hits_max=st.integers(1, 5), seed=st.integers(0, 1000))
def test_grouped_hits_are_the_best_of_the_best_documents(documents: int, top_k: int, hits_max: int, seed: int) -> None:
    on = bench(many_rows(60, documents=documents, seed=seed))
    result = asyncio.run(on.run(SearchCall(vector=RAW, top_k=top_k, grouping=Grouping(hits_per_document_max=hits_max))))
    assert chunk_ids(result) == grouping_reference(on, top_k, hits_max, dense_ids(on))
    assert len({orjson.loads(chunk)["document_id"] for chunk in result.chunks}) == min(top_k, len(document_ids(on)))


async def test_grouping_looks_further_until_it_has_enough_documents() -> None:
    near = [row(number, VECTOR + number * 1e-3, document_id="crowd") for number in range(300)]
    far = [row(1000 + number, -VECTOR + number, document_id=f"d{number}") for number in range(4)]
    on = bench(near + far)
    result = await on.run(SearchCall(vector=RAW, top_k=5, grouping=Grouping()))
    assert {orjson.loads(chunk)["document_id"] for chunk in result.chunks} == {"crowd", "d0", "d1", "d2", "d3"}
    assert [queries[0].limit for queries, _, _ in on.gatherer.gathers] == [50, 200, 800]


async def test_grouping_stops_looking_at_its_bound() -> None:
    on = bench([row(number, VECTOR, document_id="crowd") for number in range(10_050)])
    result = await on.run(SearchCall(vector=RAW, top_k=2, grouping=Grouping()))
    assert len(result.chunks) == 1
    assert [queries[0].limit for queries, _, _ in on.gatherer.gathers] == [50, 200, 800, 3200, 10_000]


async def test_chunks_without_a_document_are_documents_of_their_own() -> None:
    on = bench(many_rows(20))
    assert await on.ids(SearchCall(vector=RAW, top_k=6, grouping=Grouping(hits_per_document_max=3))) == dense_ids(on)[:6]


async def test_only_the_fields_that_are_asked_for_come_back() -> None:
    on = bench(many_rows(9, documents=2))
    result = await on.run(SearchCall(vector=RAW, top_k=3, fields=("text",)))
    assert [set(orjson.loads(chunk)) for chunk in result.chunks] == [{"id", "text"}] * 3
    assert on.gatherer.fetches == []
    result = await on.run(SearchCall(vector=RAW, top_k=3, fields=("vector",)))
    vectors = {each.chunk.id: each.vector.tolist() for each in on.gatherer.rows}
    assert [orjson.loads(chunk) for chunk in result.chunks] == [
        {"id": name, "vector": vectors[name]} for name in dense_ids(on)[:3]
    ]
