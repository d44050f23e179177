"""A real cross-encoder: a BERT of two layers and drawn weights, saved as any other and loaded by its folder."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from opentelemetry.trace import NoOpTracer
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from penstock.errors import FailedPrecondition
from retrieval_svc.embedding.cross_encoder import load_reranker
from retrieval_svc.ingest.chunking import split_to_windows
from retrieval_svc.search.calls import Reranking as Asked
from retrieval_svc.search.calls import SearchCall
from retrieval_svc.search.reranking import Reranking
from tests.retrieval_svc.search.fakes import TOPICS, bench, chunk_ids, many_rows
from tests.retrieval_svc.search.references import RAW, dense_ids

pytestmark = pytest.mark.model

WINDOW = 24
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOPICS, *(f"n{number}" for number in range(100))]


def config(labels: int = 1) -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=WINDOW, initializer_range=0.6, num_labels=labels,
    )  # fmt: skip


def tokenizer(folder: Path) -> BertTokenizerFast:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=WINDOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross-encoder")
    tokenizer(folder).save_pretrained(folder)
    torch.manual_seed(11)
    BertForSequenceClassification(config()).save_pretrained(folder)
    return folder


def scores_by_hand(folder: Path, query: str, texts: Sequence[str]) -> list[float]:
    """The scores as the model's own library gives them, a pair at a time."""
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokens = tokenizer(folder)
    with torch.no_grad():
        logits = [model(**tokens(query, text, return_tensors="pt")).logits for text in texts]
    return [float(torch.sigmoid(each)) for each in logits]


TEXTS = ["canal lock", "barge", "sluice weir lift tow rope", "lock lock n7", "rope n1 n2 n3 n4 n5"]


def test_scores_are_those_of_the_model(folder: Path) -> None:
    reranker = load_reranker(str(folder), name="tiny")
    scores = reranker.score([("barge lock", text) for text in TEXTS])
    assert (scores.dtype, reranker.name) == (np.float32, "tiny")
    assert scores.tolist() == pytest.approx(scores_by_hand(folder, "barge lock", TEXTS), abs=1e-5)
    assert len({round(score, 3) for score in scores.tolist()}) == len(TEXTS)


def test_pairs_of_several_queries_and_passes_do_not_touch_each_other(folder: Path) -> None:
    reranker = load_reranker(str(folder), name="tiny", pass_pairs_max=2)
    together = reranker.score([(query, text) for query in ("barge", "rope tow") for text in TEXTS])
    expected = scores_by_hand(folder, "barge", TEXTS) + scores_by_hand(folder, "rope tow", TEXTS)
    assert together.tolist() == pytest.approx(expected, abs=1e-5)


def test_of_a_long_text_every_window_is_read_and_the_best_one_counts(folder: Path) -> None:
    reranker = load_reranker(str(folder), name="tiny")
    room = WINDOW - 3 - 1  # Less three special tokens and the query.
    text = " ".join(f"n{number}" for number in range(60))
    windows = [window for window, _ in split_to_windows(text, words, room)]
    assert " ".join(windows) == text
    by_hand = scores_by_hand(folder, "barge", windows)
    assert max(by_hand) > by_hand[0] + 1e-3, "or reading only the first window would do"
    assert reranker.score([("barge", "n1"), ("barge", text), ("barge", "n2")])[1] == pytest.approx(max(by_hand), abs=1e-5)


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def test_a_long_query_leaves_half_the_window_to_the_text(folder: Path) -> None:
    reranker = load_reranker(str(folder), name="tiny")
    query = " ".join(TOPICS * 6)
    half = " ".join(query.split()[: (WINDOW - 3) // 2])
    scores = reranker.score([(query, text) for text in TEXTS])
    assert scores.tolist() == pytest.approx(scores_by_hand(folder, half, TEXTS), abs=1e-5)
    assert len(set(scores.tolist())) == len(TEXTS)


async def test_a_search_comes_in_the_order_of_the_models_scores(folder: Path) -> None:
    reranking = Reranking(load_reranker(str(folder), name="tiny"), tracer=NoOpTracer(), batch_max=4, waiting_max=8)
    on = bench(many_rows(60), rerankings={"tiny": reranking})
    call = SearchCall(text="barge lock", vector=RAW, top_k=20, reranking=Asked(model="tiny", candidates=20))
    result = await on.run(call)
    await reranking.close()
    texts = {each.chunk.id: each.chunk.text for each in on.gatherer.rows}
    pool = dense_ids(on)[:20]
    by_hand = dict(zip(pool, scores_by_hand(folder, "barge lock", [texts[each] for each in pool]), strict=True))
    assert result.scores.tolist() == pytest.approx(sorted(by_hand.values(), reverse=True), abs=1e-5)
    assert [by_hand[each] for each in chunk_ids(result)] == pytest.approx(result.scores.tolist(), abs=1e-5)
    assert chunk_ids(result) != pool


def test_what_is_not_there_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be loaded"):
        load_reranker(str(tmp_path / "nothing"), name="x")
    with pytest.raises(FailedPrecondition, match="not installed"):
        load_reranker("package:no_such_package/model", name="x")


def test_an_encoder_without_a_head_is_refused_instead_of_scoring_at_random(tmp_path: Path) -> None:
    tokenizer(tmp_path).save_pretrained(tmp_path)
    BertModel(config()).save_pretrained(tmp_path)
    with pytest.raises(FailedPrecondition, match="no cross-encoder but a BertModel"):
        load_reranker(str(tmp_path), name="x")


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    tokenizer(tmp_path).save_pretrained(tmp_path)
    BertForSequenceClassification(config(labels=3)).save_pretrained(tmp_path)
    with pytest.raises(FailedPrecondition, match="3 numbers"):
        load_reranker(str(tmp_path), name="x")
