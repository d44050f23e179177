import asyncio

import numpy as np
import pytest

from retrieval_svc.embedding.cache import VectorCache
from retrieval_svc.embedding.embedder import Embedded, Purpose
from tests.retrieval_svc.embedding.embedding_fakes import CountingEmbedder, Counts, embeddings_over


async def test_a_text_is_embedded_once_for_a_purpose() -> None:
    counts, embedder = Counts(), CountingEmbedder()
    embeddings = embeddings_over(embedder, cache=VectorCache(2**20, counts))
    first = await embeddings.query("same")
    first[:] = 0  # The caller's own.
    again = await embeddings.query("same")
    await embeddings.texts(["same"])
    await embeddings.close()
    assert embedder.texts == ["same", "same"]
    assert (counts.hit, counts.missed) == (1, 2)
    np.testing.assert_array_equal(again, CountingEmbedder().embed(["same"])[0])


async def test_models_that_share_a_cache_do_not_share_vectors() -> None:
    cache = VectorCache(2**20)
    one, other = CountingEmbedder("words/1"), CountingEmbedder("words/2")
    for embedder in (one, other):
        embeddings = embeddings_over(embedder, cache=cache)
        await embeddings.query("same")
        await embeddings.close()
    assert one.texts == other.texts == ["same"]


async def test_texts_that_come_at_once_are_embedded_once_even_without_room_to_keep_them() -> None:
    counts, embedder = Counts(), CountingEmbedder()
    embeddings = embeddings_over(embedder, cache=VectorCache(0, counts))
    vectors = await asyncio.gather(*(embeddings.query("same") for _ in range(5)))
    twice, tokens = await embeddings.embed(["two words", "one", "two words"], Purpose.DOCUMENT)
    await embeddings.close()
    assert sorted(embedder.texts) == ["one", "same", "two words"]
    assert tokens == 5
    np.testing.assert_array_equal(twice[0], twice[2])
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    assert (counts.hit, counts.missed) == (5, 3)


async def test_the_bytes_are_bounded_and_the_longest_unused_goes_first() -> None:
    cache, embedder = VectorCache(1200), CountingEmbedder()  # An entry is 64 x 4 + 300 bytes: two fit.
    embeddings = embeddings_over(embedder, cache=cache)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embeddings.query(text)
        assert cache.bytes_used <= 1200
    await embeddings.close()
    assert embedder.texts == ["a", "b", "c", "b"]


async def test_who_waits_for_one_who_leaves_embeds_for_himself() -> None:
    cache, began = VectorCache(2**20), asyncio.Event()
    vector = np.ones((1, 3), dtype=np.float32)

    async def never(texts: list[str]) -> Embedded:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def at_once(texts: list[str]) -> Embedded:
        return Embedded(vectors=vector, token_counts=(7,), batch_size=1)

    leaving = asyncio.create_task(cache.embed("f", Purpose.QUERY, ["t"], never))
    await began.wait()
    staying = asyncio.create_task(cache.embed("f", Purpose.QUERY, ["t"], at_once))
    await asyncio.sleep(0)
    assert not staying.done()
    leaving.cancel()
    found, tokens = await staying
    np.testing.assert_array_equal(found, vector)
    assert tokens == 7
    assert leaving.cancelled()


async def test_a_failure_is_not_kept() -> None:
    embedder = CountingEmbedder()
    embeddings = embeddings_over(embedder, cache=VectorCache(2**20))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="asked to fail"):
            await embeddings.query("fail")
    await embeddings.query("fine")
    await embeddings.close()
    assert embedder.texts == ["fine"]
