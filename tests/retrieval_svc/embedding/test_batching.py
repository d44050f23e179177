import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.errors import Overloaded
from retrieval_svc.embedding.batching import combine_windows, plan_passes
from tests.retrieval_svc.embedding.embedding_fakes import WINDOW_TOKENS, CountingEmbedder, embeddings_over


async def test_texts_get_their_own_vectors_whatever_they_were_batched_with() -> None:
    embedder = CountingEmbedder()
    embeddings = embeddings_over(embedder)
    texts = [f"word{number} shared" for number in range(40)]
    together = await asyncio.gather(*(embeddings.query(text) for text in texts))
    bulk = await embeddings.texts(texts)
    await embeddings.close()
    for text, alone, among in zip(texts, together, bulk, strict=True):
        np.testing.assert_array_equal(alone, CountingEmbedder().embed([text])[0])
        np.testing.assert_array_equal(alone, among)


async def test_queries_that_wait_share_a_pass() -> None:
    embedder = CountingEmbedder()
    embeddings = embeddings_over(embedder)
    await asyncio.gather(*(embeddings.query(f"q{number}") for number in range(30)))
    await embeddings.close()
    assert len(embedder.passes) < 30
    assert max(map(len, embedder.passes)) <= 8


async def test_a_text_over_the_window_is_embedded_whole() -> None:
    embeddings = embeddings_over(CountingEmbedder())
    words = [f"w{number}" for number in range(3 * WINDOW_TOKENS)]
    vector = await embeddings.query(" ".join(words))
    last = CountingEmbedder().embed([words[-1]])[0]
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


async def test_the_span_of_an_embedding_belongs_to_its_request() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    embeddings = embeddings_over(CountingEmbedder(), provider=provider)
    with provider.get_tracer("test").start_as_current_span("request") as request:
        await embeddings.query("two words")
    await embeddings.close()
    span = next(each for each in exporter.get_finished_spans() if each.name == "embeddings words")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 2
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["penstock.batch.size"] == 1


async def test_a_batch_of_queries_is_answered_in_order_and_waits_as_few_jobs() -> None:
    embeddings = embeddings_over(CountingEmbedder(), query_waiting_max=8)
    texts = [f"q{number}" for number in range(64)]
    vectors = await embeddings.queries(texts)
    with pytest.raises(Overloaded):
        await embeddings.queries([*texts, "one job more"])
    await embeddings.close()
    np.testing.assert_array_equal(vectors, np.concatenate([CountingEmbedder().embed([text]) for text in texts]))
