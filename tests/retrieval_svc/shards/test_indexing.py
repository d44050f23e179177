import asyncio

import numpy as np
import pytest

from penstock.errors import CollectionNotFound, Overloaded
from retrieval_svc.shards.index import FlatIndex, flat_index_builder
from retrieval_svc.shards.indexing import Indexes
from retrieval_svc.values import Matrix, Metric, Neighbours

NOTHING = np.empty(0, dtype=np.int64)


class CountingIndex(FlatIndex):
    """Notes how many queries each call had."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        super().__init__(dimension, metric)
        self.calls: list[int] = []

    def search(self, queries: Matrix, top_k: int) -> list[Neighbours]:
        self.calls.append(len(queries))
        return super().search(queries, top_k)


async def test_searching_beside_adding_and_removing_is_safe_and_sees_each_write_after_it() -> None:
    indexes = Indexes(flat_index_builder(1), batch_max=16, waiting_max=10_000)
    await indexes.create(1, 32, Metric.COSINE)
    rng = np.random.default_rng(7)

    async def write(batch: int) -> None:
        vectors = rng.standard_normal((50, 32), dtype=np.float32)
        sequences = np.arange(batch * 50, batch * 50 + 50, dtype=np.int64)
        await indexes.apply(1, removed=NOTHING, stored=sequences, vectors=vectors)
        assert (await indexes.search(1, vectors[0], 1)).sequences.tolist() == [batch * 50]
        await indexes.apply(1, removed=sequences[:25], stored=NOTHING, vectors=vectors[:0])
        assert (await indexes.search(1, vectors[0], 1)).sequences.tolist() != [batch * 50]

    async def read() -> None:
        for _ in range(100):
            await indexes.search(1, rng.standard_normal(32, dtype=np.float32), 10)

    await asyncio.gather(*(write(batch) for batch in range(200)), *(read() for _ in range(8)))
    found = await indexes.search(1, np.ones(32, dtype=np.float32), 100_000)
    await indexes.close()
    assert sorted(found.sequences.tolist()) == [sequence for sequence in range(10_000) if sequence % 50 >= 25]


async def test_searches_that_wait_together_are_one_call() -> None:
    built: list[CountingIndex] = []

    def build(dimension: int, metric: Metric) -> CountingIndex:
        built.append(CountingIndex(dimension, metric))
        return built[-1]

    indexes = Indexes(build, batch_max=64, waiting_max=1000)
    await indexes.create(1, 2, Metric.INNER_PRODUCT)
    vectors = np.eye(2, dtype=np.float32)
    await indexes.apply(1, removed=NOTHING, stored=np.array([1, 2], dtype=np.int64), vectors=vectors)
    found = await asyncio.gather(*(indexes.search(1, vectors[number % 2], 1) for number in range(60)))
    await indexes.close()
    assert [neighbours.sequences[0] for neighbours in found] == [1, 2] * 30
    assert sum(built[0].calls) == 60
    assert len(built[0].calls) < 30


async def test_a_search_of_a_collection_that_is_gone_says_so_and_harms_no_other() -> None:
    indexes = Indexes(flat_index_builder(1), batch_max=64, waiting_max=1000)
    await indexes.create(1, 2, Metric.COSINE)
    await indexes.create(2, 2, Metric.COSINE)
    await indexes.drop(1)
    query = np.array([1, 0], dtype=np.float32)
    gone, here = await asyncio.gather(indexes.search(1, query, 1), indexes.search(2, query, 1), return_exceptions=True)
    await indexes.close()
    assert isinstance(gone, CollectionNotFound)
    assert isinstance(here, Neighbours)


async def test_a_full_queue_refuses_searches_but_never_a_write() -> None:
    indexes = Indexes(flat_index_builder(1), batch_max=1, waiting_max=1)
    await indexes.create(1, 2, Metric.COSINE)
    query = np.array([1, 0], dtype=np.float32)
    searches = [indexes.search(1, query, 1) for _ in range(50)]
    write = indexes.apply(1, removed=NOTHING, stored=np.array([1], dtype=np.int64), vectors=query[None])
    *outcomes, written = await asyncio.gather(*searches, write, return_exceptions=True)
    await indexes.close()
    assert any(isinstance(outcome, Overloaded) for outcome in outcomes)
    assert written is None


async def test_a_write_that_fails_tells_its_writer() -> None:
    indexes = Indexes(flat_index_builder(1), batch_max=1, waiting_max=1)
    await indexes.create(1, 2, Metric.COSINE)
    with pytest.raises(AssertionError):
        await indexes.apply(1, removed=NOTHING, stored=np.array([1], dtype=np.int64), vectors=np.ones((1, 3), np.float32))
    await indexes.close()
