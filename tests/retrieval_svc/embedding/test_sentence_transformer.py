"""The real model, over real text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.errors import FailedPrecondition
from retrieval_svc.ingest.chunking import split_text, split_to_windows
from retrieval_svc.search.searching import Query
from retrieval_svc.settings import RetrievalSettings
from retrieval_svc.values import Document, Metric
from tests.retrieval_svc.fakes import running_core

if TYPE_CHECKING:
    from retrieval_svc.embedding.sentence_transformer import SentenceTransformerEmbedder

pytestmark = [pytest.mark.model, pytest.mark.slow]

CORPUS = Path(__file__).parents[2] / "examples/corpus/squad_xquad_en"
DEFAULTS = RetrievalSettings()


@pytest.fixture(scope="module")
def embedder() -> "SentenceTransformerEmbedder":
    from retrieval_svc.embedding.sentence_transformer import load_embedder  # Here, so that the fast tests need not wait for torch.

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


async def test_questions_find_their_paragraphs(embedder: "SentenceTransformerEmbedder", tmp_path: Path) -> None:
    documents = [Document(id=line["id"], text=line["contents"]) for line in lines("corpus.jsonl")[::3]]
    answers = {line["question"]: line["metadata"]["gold_doc_ids"][0] for line in lines("questions.jsonl")}
    ours = {document.id for document in documents}
    asked = [question for question, gold in answers.items() if gold in ours][::4]
    async with running_core(tmp_path, embedder=embedder, chunk_tokens_max=DEFAULTS.chunk_tokens_max) as core:
        await core.catalog.create("squad", embedding_model="", dimension=0, metric=Metric.COSINE)
        await core.ingest.ingest_documents("collections/squad", documents)
        found = {
            question: [
                hit.chunk.document_id for hit in await core.search.search("collections/squad", Query(text=question, top_k=5))
            ]
            for question in asked
        }
    assert len(asked) >= 90
    # Measured on the whole corpus, whose 240 paragraphs are harder to tell apart: 0.99 and 0.86 over 199 questions.
    assert sum(answers[question] in ids for question, ids in found.items()) / len(asked) >= 0.95
    assert sum(answers[question] == ids[0] for question, ids in found.items()) / len(asked) >= 0.8
