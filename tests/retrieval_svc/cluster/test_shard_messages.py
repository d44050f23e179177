from dataclasses import replace

import numpy as np
import pytest

from penstock.errors import MalformedRequest, Unavailable
from penstock.retrieval.v1 import shard_pb2 as pb
from retrieval_svc.cluster.shard_messages import (
    answers_from,
    fetched_from,
    fetched_to,
    floats_from,
    matched_from,
    matched_to,
    query_from,
    search_request_to,
    search_response_to,
    sequences_from,
)
from retrieval_svc.filters import Exists
from retrieval_svc.values import (
    FetchedRows,
    MatchedRows,
    Ranked,
    ShardAnswer,
    ShardFound,
    ShardQuery,
    UnmetCondition,
    Visibility,
)
from tests.retrieval_svc.cluster.fakes import FakeNode, collection, coordinating, query, serving


def test_an_answer_survives_the_way_even_where_a_side_has_no_rows() -> None:
    some = Ranked(scores=np.array([2.5, -1], np.float32), sequences=np.array([2**40, 1]), chunks=(b"a", b""))
    none = Ranked(scores=np.array([], np.float32), sequences=np.array([], np.int64))
    unmet = (UnmetCondition(field="year", wanted="time", present=frozenset({"number", "bool"})),)
    answer = ShardAnswer(shard=3, found=(ShardFound(dense=some), ShardFound(lexical=none, unmet=unmet)), row_count=2**33)
    sent = search_response_to([answer]).SerializeToString()
    [arrived] = answers_from(pb.SearchShardsResponse.FromString(sent))
    assert (arrived.shard, arrived.row_count) == (3, 2**33)
    first, second = arrived.found
    assert first.dense is not None
    assert (first.dense.scores.tolist(), first.dense.sequences.tolist(), tuple(first.dense.chunks)) == (
        [2.5, -1],
        [2**40, 1],
        (b"a", b""),
    )
    assert first.lexical is None
    assert (second.dense, second.unmet) == (None, unmet)
    assert second.lexical is not None
    assert len(second.lexical.scores) == 0


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("with_vectors", [True, False])
def test_rows_survive_the_way(count: int, with_vectors: bool) -> None:
    vectors = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    rows = FetchedRows(sequences=np.arange(count), chunks=(b"x",) * count, vectors=vectors if with_vectors else None)
    arrived = fetched_from(fetched_to(rows), with_vectors=with_vectors)
    assert (arrived.sequences.tolist(), arrived.chunks) == (list(range(count)), (b"x",) * count)
    assert (None if arrived.vectors is None else arrived.vectors.tolist()) == (vectors.tolist() if with_vectors else None)


def test_a_query_survives_the_way() -> None:
    sent = query(limit=7, document_id="d", filter=Exists(field="a"), visibility=Visibility(), exact=True, with_chunks=True)
    [message] = search_request_to(3, {1: 2}, [sent]).queries
    arrived = query_from(message)
    assert arrived.vector is not None
    assert arrived.vector.tolist() == [1.0]
    assert replace(arrived, vector=None) == replace(sent, vector=None)
    assert query_from(search_request_to(3, {1: 2}, [query()]).queries[0]).document_id == ""


def test_matches_survive_the_way() -> None:
    rows = MatchedRows(sequences=np.array([1, 2**50]), unmet=(UnmetCondition(field="a.b", wanted="string"),), row_count=3)
    arrived = matched_from(matched_to(rows))
    assert (arrived.sequences.tolist(), arrived.unmet, arrived.row_count) == ([1, 2**50], rows.unmet, 3)


def test_bytes_that_are_not_whole_numbers_are_refused() -> None:
    with pytest.raises(MalformedRequest, match="7 bytes"):
        floats_from(b"1234567")
    with pytest.raises(MalformedRequest, match="12 bytes"):
        sequences_from(b"123456789012")


class ForgetfulNode(FakeNode):
    """Answers for fewer queries than it was asked."""

    def _answer(self, shard: int, queries: list[ShardQuery]) -> ShardAnswer:  # type: ignore[override]
        return super()._answer(shard, queries[1:])


async def test_an_answer_to_something_else_is_as_good_as_none() -> None:
    async with serving(ForgetfulNode({1: {1: 1.0}})) as odd, serving(FakeNode({1: {1: 1.0}})) as good:
        async with coordinating(FakeNode({0: {}}), f",{odd.address}") as coordinator:
            with pytest.raises(Unavailable, match="did not answer for the shards that it was asked for"):
                await coordinator.gather(collection(2), [query()], at_least={}, allow_partial=False)
        async with coordinating(FakeNode({0: {}}), f",{odd.address}|{good.address}") as coordinator:
            for _ in range(3):
                await coordinator.gather(collection(2), [query()], at_least={}, allow_partial=False)
