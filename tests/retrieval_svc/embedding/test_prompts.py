import numpy as np
import pytest

from penstock.errors import FailedPrecondition
from retrieval_svc.embedding.embedder import Purpose
from retrieval_svc.embedding.prompts import NO_PROMPTS, Prompts, prompted
from tests.retrieval_svc.embedding.embedding_fakes import WINDOW_TOKENS, CountingEmbedder, embeddings_over


async def test_queries_and_documents_are_read_with_their_own_prompts() -> None:
    embedder = CountingEmbedder()
    embeddings = embeddings_over(embedder, prompts=Prompts(query="ask: ", document="tell: "))
    await embeddings.query("a")
    await embeddings.texts(["b"])
    await embeddings.close()
    assert embedder.texts == ["ask: a", "tell: b"]


async def test_every_window_of_a_long_text_has_the_prompt_and_fits() -> None:
    embedder = CountingEmbedder()  # Which fails on what does not fit its window.
    embeddings = embeddings_over(embedder, prompts=Prompts(document="one two three: "))
    vectors, tokens = await embeddings.embed([" ".join(f"w{at}" for at in range(3 * WINDOW_TOKENS))], Purpose.DOCUMENT)
    await embeddings.close()
    assert embeddings.model.window_tokens == WINDOW_TOKENS - 4
    assert len(embedder.texts) >= 4
    assert all(text.startswith("one two three: ") for text in embedder.texts)
    assert tokens == 3 * WINDOW_TOKENS
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, abs=1e-6)


def test_prompts_are_part_of_the_fingerprint_where_there_are_any() -> None:
    def fingerprint(prompts: Prompts) -> str:
        both = {each.model.fingerprint for each in prompted(CountingEmbedder(), prompts).values()}
        assert len(both) == 1
        return both.pop()

    assert fingerprint(NO_PROMPTS) == "words/1"
    made = {fingerprint(each) for each in (Prompts(query="a"), Prompts(document="a"), Prompts(query="b"), NO_PROMPTS)}
    assert len(made) == 4


def test_a_prompt_that_fills_the_window_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="shorter"):
        prompted(CountingEmbedder(), Prompts(query="word " * WINDOW_TOKENS))
