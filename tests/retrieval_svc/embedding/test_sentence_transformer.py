"""The real model, over real text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.errors import FailedPrecondition
from retrieval_svc.ingest.chunking import split_text, split_to_windows
from retrieval_svc.settings import RetrievalSettings

if TYPE_CHECKING:
    from retrieval_svc.embedding.sentence_transformer import SentenceTransformerEmbedder

pytestmark = [pytest.mark.model, pytest.mark.slow]

CORPUS = Path(__file__).parents[3] / "examples/corpus/squad_xquad_en"
DEFAULTS = RetrievalSettings()


@pytest.fixture(scope="module")
def embedder() -> "SentenceTransformerEmbedder":
    from retrieval_svc.embedding.sentence_transformer import (
        load_embedder,  # Here, so that the fast tests need not wait for torch.
    )

    return load_embedder(DEFAULTS.embedding_model, name=DEFAULTS.embedding_model_name, threads=1)


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


def test_the_model_says_what_it_is(embedder: "SentenceTransformerEmbedder") -> None:
    model = embedder.model
    assert (model.name, model.dimension, model.window_tokens) == ("all-MiniLM-L6-v2", 384, 254)
    assert model.fingerprint.startswith("all-MiniLM-L6-v2/float32/256/mean+normalize/")


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(embedder: "SentenceTransformerEmbedder") -> None:
    texts = ["A short one.", "Another that is quite a bit longer than the first of them.", "Ein dritter."]
    together = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([embedder.embed([text]) for text in texts]), atol=1e-5)


def test_tokens_are_counted_beyond_the_window_and_chunks_fit_it(embedder: "SentenceTransformerEmbedder") -> None:
    text = " ".join(document["contents"] for document in lines("corpus.jsonl")[:8])
    assert len(embedder.token_spans(text)) > 1000
    pieces = split_text(text, embedder.token_spans, tokens_max=254, overlap_tokens=32)
    assert all(len(embedder.token_spans(piece)) <= 254 for piece in pieces)


def test_the_end_of_a_text_over_the_window_counts(embedder: "SentenceTransformerEmbedder") -> None:
    windows = split_to_windows("football match " * 400 + "quantum entanglement " * 200, embedder.token_spans, 254)
    vectors = embedder.embed([window for window, _ in windows])
    physics = embedder.embed(["quantum entanglement"])[0]
    assert sum(count for _, count in windows) == 1200 + (len(embedder.token_spans("entanglement")) - 1) * 200
    assert vectors[-1] @ physics > 0.6 > vectors[0] @ physics


def test_a_model_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    from retrieval_svc.embedding.sentence_transformer import load_embedder

    with pytest.raises(FailedPrecondition, match="pip install"):
        load_embedder("package:no_such_model/model", name="m", threads=1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FailedPrecondition, match="cannot be loaded"):
        load_embedder(str(tmp_path), name="m", threads=1)
