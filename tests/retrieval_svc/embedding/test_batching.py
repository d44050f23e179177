import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from retrieval_svc.embedding.batching import Embeddings, combine_windows, plan_passes
from tests.retrieval_svc.fakes import WINDOW_TOKENS, Core, WordEmbedder


def embeddings_over(embedder: WordEmbedder) -> Embeddings:
    return Embeddings(
        embedder,
        tracer=TracerProvider().get_tracer("test"),
        query_batch_max=8,
        query_waiting_max=64,
        write_batch_max=4,
        pass_tokens_max=20,
    )


async def test_texts_get_their_own_vectors_whatever_they_were_batched_with() -> None:
    embedder = WordEmbedder()
    embeddings = embeddings_over(embedder)
    texts = [f"word{number} shared" for number in range(40)]
    together = await asyncio.gather(*(embeddings.query(text) for text in texts))
    bulk = await embeddings.texts(texts)
    await embeddings.close()
    for text, alone, among in zip(texts, together, bulk, strict=True):
        np.testing.assert_array_equal(alone, WordEmbedder().embed([text])[0])
        np.testing.assert_array_equal(alone, among)


async def test_queries_that_wait_share_a_pass() -> None:
    embedder = WordEmbedder()
    embeddings = embeddings_over(embedder)
    await asyncio.gather(*(embeddings.query(f"q{number}") for number in range(30)))
    await embeddings.close()
    assert len(embedder.passes) < 30
    assert max(map(len, embedder.passes)) <= 8


async def test_a_text_over_the_window_is_embedded_whole() -> None:
    embeddings = embeddings_over(WordEmbedder())
    words = [f"w{number}" for number in range(3 * WINDOW_TOKENS)]
    vector = await embeddings.query(" ".join(words))
    last = WordEmbedder().embed([words[-1]])[0]
    without_last = await embeddings.query(" ".join(words[:-1]))
    await embeddings.close()
    assert vector @ last > without_last @ last
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)


def test_windows_are_weighted_by_their_tokens() -> None:
    vectors = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    combined = combine_windows(vectors, [[3, 1], [5]])
    np.testing.assert_allclose(combined[0], np.array([3, 1]) / np.sqrt(10), rtol=1e-6)
    np.testing.assert_array_equal(combined[1], [0, 1])


def test_the_mean_of_windows_is_as_long_as_they_are() -> None:
    vectors = np.array([[2, 0], [0, 4]], dtype=np.float32)
    assert np.linalg.norm(combine_windows(vectors, [[1, 1]])[0]) == pytest.approx(3.0)


def test_windows_that_cancel_out_still_give_a_direction() -> None:
    combined = combine_windows(np.array([[1, 0], [-1, 0]], dtype=np.float32), [[2, 2]])
    assert np.linalg.norm(combined[0]) == pytest.approx(1.0)


@given(counts=st.lists(st.integers(0, 300), max_size=60), tokens_max=st.integers(1, 2000))
def test_passes_hold_every_text_once_and_stay_within_the_tokens(counts: list[int], tokens_max: int) -> None:
    passes = list(plan_passes(counts, tokens_max))
    assert sorted(at for places in passes for at in places) == list(range(len(counts)))
    assert all(len(places) == 1 or max(counts[at] for at in places) * len(places) <= tokens_max for places in passes)


async def test_the_span_of_an_embedding_belongs_to_its_request(core: Core) -> None:
    with core.provider.get_tracer("test").start_as_current_span("request") as request:
        await core.catalog.embeddings_for(core.catalog.find("collections/texts").spec).query("two words")
    span = core.spans()["embeddings words"]
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 2
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["penstock.batch.size"] == 1
