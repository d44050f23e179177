"""One ranking out of the shards' rankings."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.search.gathering import Gathered, GatheredRows
from retrieval_svc.values import Ranked, ShardAnswer, ShardQuery


def merge_answers(
    queries: Sequence[ShardQuery], answers: Sequence[ShardAnswer], missing_shards: tuple[int, ...] = ()
) -> list[Gathered]:
    """What each query found in all shards, which are in ascending order; each side at most the query's limit."""
    if len(answers) == 1:
        return _only(queries, answers[0], missing_shards)
    shards = [answer.shard for answer in answers]
    if _are_regular(queries, answers):
        sides = [[answer.found[at].dense for answer in answers] for at in range(len(queries))]
        merged = _merge_regular(queries[0].limit, shards, sides)  # type: ignore[arg-type]  # There is no None among them.
        return [Gathered(dense=dense, missing_shards=missing_shards) for dense in merged]
    return [
        Gathered(
            dense=_merge_side(query.limit, shards, [answer.found[at].dense for answer in answers]),
            lexical=_merge_side(query.limit, shards, [answer.found[at].lexical for answer in answers]),
            missing_shards=missing_shards,
        )
        for at, query in enumerate(queries)
    ]


def _only(queries: Sequence[ShardQuery], answer: ShardAnswer, missing_shards: tuple[int, ...]) -> list[Gathered]:
    """One shard's rankings are in order already."""
    return [
        Gathered(
            dense=_rows(query.limit, answer.shard, found.dense),
            lexical=_rows(query.limit, answer.shard, found.lexical),
            missing_shards=missing_shards,
        )
        for query, found in zip(queries, answer.found, strict=True)
    ]


def _are_regular(queries: Sequence[ShardQuery], answers: Sequence[ShardAnswer]) -> bool:
    """Whether all queries have the same limit, only a dense side, and of that as much as they may in every shard."""
    limit = queries[0].limit
    return all(query.limit == limit for query in queries) and all(
        found.lexical is None and found.dense is not None and len(found.dense.scores) == limit
        for answer in answers
        for found in answer.found
    )


def _merge_regular(limit: int, shards: Sequence[int], sides: Sequence[Sequence[Ranked]]) -> list[GatheredRows]:
    """The same as `merge_ranked` of each query's sides, for all queries in a few calls of NumPy's.

    A stable order by score alone is enough: within a shard rows are in order, and the shards are.
    """
    shape = len(sides), len(shards) * limit
    scores = np.concatenate([side.scores for found in sides for side in found]).reshape(shape)
    sequences = np.concatenate([side.sequences for found in sides for side in found]).reshape(shape)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
    scores, sequences = np.take_along_axis(scores, best, 1), np.take_along_axis(sequences, best, 1)
    parts, places = np.divmod(best, limit)
    columns = zip(
        scores, np.array(shards, dtype=np.int32)[parts], sequences, parts.tolist(), places.tolist(), sides, strict=True
    )
    return [
        GatheredRows(scores=score, shards=shard, sequences=sequence, chunks=_picked(found, part, place))
        for score, shard, sequence, part, place, found in columns
    ]


def _picked(sides: Sequence[Ranked], parts: Sequence[int], places: Sequence[int]) -> tuple[bytes, ...]:
    """The chunks of rows by their part and their place in it; none where some part came without."""
    if not all(len(side.chunks) == len(side.scores) for side in sides):
        return ()
    return tuple([sides[part].chunks[place] for part, place in zip(parts, places, strict=True)])


def _rows(limit: int, shard: int, ranked: Ranked | None) -> GatheredRows | None:
    if ranked is None:
        return None
    count = len(ranked.scores)
    if count > limit:
        return merge_ranked(limit, [(shard, ranked)])
    return GatheredRows(
        scores=ranked.scores, shards=_column(shard, count), sequences=ranked.sequences, chunks=tuple(ranked.chunks)
    )


def _merge_side(limit: int, shards: Sequence[int], sides: Sequence[Ranked | None]) -> GatheredRows | None:
    """None where no shard was asked for that side."""
    asked = [(shard, side) for shard, side in zip(shards, sides, strict=True) if side is not None]
    return merge_ranked(limit, asked) if asked else None


def merge_ranked(limit: int, parts: Sequence[tuple[int, Ranked]]) -> GatheredRows:
    """The best `limit` rows of all parts: higher scores first, then lower shards, then lower sequence numbers."""
    scores = np.concatenate([ranked.scores for _, ranked in parts])
    sequences = np.concatenate([ranked.sequences for _, ranked in parts])
    counts = [len(ranked.scores) for _, ranked in parts]
    shards = np.repeat(np.array([shard for shard, _ in parts], dtype=np.int32), counts)
    best = np.lexsort((sequences, shards, -scores))[:limit]
    chunks = [chunk for _, ranked in parts for chunk in ranked.chunks]
    return GatheredRows(
        scores=scores[best],
        shards=shards[best],
        sequences=sequences[best],
        chunks=tuple([chunks[at] for at in best.tolist()]) if len(chunks) == len(scores) else (),
    )


@lru_cache(maxsize=256)
def _column(shard: int, count: int) -> NDArray[np.int32]:
    """The shard of rows that are all of one shard. Shared, and so not to be written to."""
    column = np.full(count, shard, dtype=np.int32)
    column.flags.writeable = False
    return column
