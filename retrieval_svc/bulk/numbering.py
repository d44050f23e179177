"""Which shard a chunk goes to, and its number there."""

from collections.abc import Mapping, Sequence

from retrieval_svc.record.rows import stored
from retrieval_svc.values import Chunk, Matrix, Rows, shard_of


def numbered(chunks: Sequence[Chunk], vectors: Matrix, ends: Sequence[int]) -> Mapping[int, Rows]:
    """The rows of each shard that gets any, numbered on from its end. Row i of `vectors` is chunk i's."""
    places: dict[int, list[int]] = {}
    for at, chunk in enumerate(chunks):
        places.setdefault(shard_of(chunk.id, len(ends)), []).append(at)
    return {
        shard: Rows(
            chunks=tuple(stored(chunks[at], number) for number, at in enumerate(here, start=ends[shard] + 1)),
            vectors=vectors[here] if len(places) > 1 else vectors,
        )
        for shard, here in sorted(places.items())
    }
