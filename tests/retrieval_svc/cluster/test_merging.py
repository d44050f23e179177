import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_svc.cluster.merging import merge_answers, merge_ranked
from retrieval_svc.search.gathering import GatheredRows
from retrieval_svc.values import Ranked, ShardAnswer, ShardFound, ShardQuery

ROWS = st.lists(
    st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]), st.integers(1, 2**40)), max_size=8, unique_by=lambda row: row[1]
)


def ranked(rows: list[tuple[float, int]], chunks: tuple[bytes, ...] = ()) -> Ranked:
    best = sorted(rows, key=lambda row: (-row[0], row[1]))
    return Ranked(
        scores=np.array([score for score, _ in best], dtype=np.float32),
        sequences=np.array([number for _, number in best], dtype=np.int64),
        chunks=chunks,
    )


def shards_of(side: GatheredRows | None) -> list[int]:
    assert side is not None
    return side.shards.tolist()


@given(st.dictionaries(st.integers(0, 9), ROWS, min_size=1, max_size=5), st.integers(1, 12))
def test_the_merged_ranking_is_that_of_all_rows_sorted(shards: dict[int, list[tuple[float, int]]], limit: int) -> None:
    every = [(-score, shard, number) for shard, rows in shards.items() for score, number in rows]
    merged = merge_ranked(limit, [(shard, ranked(rows)) for shard, rows in shards.items()])
    columns = zip((-merged.scores).tolist(), merged.shards.tolist(), merged.sequences.tolist(), strict=True)
    assert list(columns) == sorted(every)[:limit]


@given(st.dictionaries(st.integers(0, 9), ROWS, min_size=1, max_size=5), st.integers(1, 12))
def test_chunks_stay_with_their_rows(shards: dict[int, list[tuple[float, int]]], limit: int) -> None:
    parts = []
    for shard, rows in shards.items():
        plain = ranked(rows)
        chunks = tuple(f"{shard}/{number}".encode() for number in plain.sequences.tolist())
        parts.append((shard, ranked(rows, chunks)))
    merged = merge_ranked(limit, parts)
    places = zip(merged.shards.tolist(), merged.sequences.tolist(), strict=True)
    assert merged.chunks == tuple(f"{shard}/{number}".encode() for shard, number in places)


def test_the_sides_are_merged_apart_and_one_that_was_not_asked_for_stays_away() -> None:
    both = ShardFound(dense=ranked([(1.0, 1)]), lexical=ranked([(9.0, 2)]))
    dense_only = ShardFound(dense=ranked([(2.0, 7)]))
    answers = [
        ShardAnswer(shard=0, found=(both, dense_only), row_count=2),
        ShardAnswer(shard=1, found=(both, dense_only), row_count=2),
    ]
    first, second = merge_answers([ShardQuery(limit=3), ShardQuery(limit=1)], answers, missing_shards=(2,))
    assert shards_of(first.dense) == shards_of(first.lexical) == [0, 1]
    assert shards_of(second.dense) == [0]
    assert second.lexical is None
    assert second.missing_shards == (2,)


def test_shards_without_rows_give_an_empty_ranking() -> None:
    merged = merge_ranked(5, [(0, ranked([])), (3, ranked([]))])
    assert len(merged.scores) == len(merged.shards) == len(merged.sequences) == 0


QUERIES_OF_THREE_SHARDS = st.lists(
    st.lists(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]), min_size=4, max_size=4), min_size=3, max_size=3),
    min_size=1,
    max_size=4,
)


@given(QUERIES_OF_THREE_SHARDS)
def test_queries_that_are_alike_are_merged_together_as_each_alone(queries: list[list[list[float]]]) -> None:
    def side(shard: int, scores: list[float]) -> Ranked:
        numbered = [(score, 10 * at + shard) for at, score in enumerate(scores)]
        chunks = tuple(f"{shard}/{number}".encode() for _, number in sorted(numbered, key=lambda row: (-row[0], row[1])))
        return ranked(numbered, chunks)

    sides = [[side(shard, scores) for shard, scores in enumerate(found)] for found in queries]
    answers = [
        ShardAnswer(shard=shard, found=tuple(ShardFound(dense=found[shard]) for found in sides), row_count=4)
        for shard in range(3)
    ]
    together = merge_answers([ShardQuery(limit=4)] * len(queries), answers)
    for found, alone in zip(together, sides, strict=True):
        expected = merge_ranked(4, list(enumerate(alone)))
        assert found.dense is not None
        assert found.dense.scores.tolist() == expected.scores.tolist()
        assert found.dense.shards.tolist() == expected.shards.tolist()
        assert found.dense.sequences.tolist() == expected.sequences.tolist()
        assert found.dense.chunks == expected.chunks
