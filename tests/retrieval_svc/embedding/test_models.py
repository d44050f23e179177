import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from penstock.errors import EmbeddingMismatch, FailedPrecondition, ModelNotFound
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.loading import Loaded, ModelConfig
from retrieval_svc.embedding.models import EmbeddingModels, check_fingerprints
from retrieval_svc.embedding.prompts import Prompts
from retrieval_svc.values import CollectionSpec, Metric
from tests.retrieval_svc.embedding.embedding_fakes import CountingEmbedder, embeddings_over


def loaded(config: ModelConfig) -> Loaded:
    prompts = Prompts(query=config.query_prompt or "")
    return Loaded(embedder=CountingEmbedder(f"print-{config.name}", config.name), prompts=prompts)


def started(each: Loaded) -> Embeddings:
    return embeddings_over(each.embedder, prompts=each.prompts)


@asynccontextmanager
async def loaded_models(*names: str) -> AsyncIterator[EmbeddingModels]:
    configs = [ModelConfig(name=name, reference=f"/{name}") for name in names]
    models = await EmbeddingModels.load(configs, load=loaded, start=started)
    yield models
    await models.close()


def collection(name: str, model: str, fingerprint: str) -> CollectionSpec:
    return CollectionSpec(id=name, embedding_model=model, embedding_fingerprint=fingerprint, dimension=64, metric=Metric.COSINE)


async def test_the_first_model_is_the_default() -> None:
    async with loaded_models("one", "two") as models:
        assert models.default == "one"
        assert list(models.models) == ["one", "two"]
        assert models.for_name("") is models.for_name("one")
        assert models.for_name("two").model.fingerprint == "print-two"


async def test_a_model_that_is_not_loaded_is_named_beside_those_that_are() -> None:
    async with loaded_models("one", "two") as models:
        with pytest.raises(ModelNotFound, match=r"'three'.*'one', 'two'"):
            models.for_name("three")
    async with loaded_models() as models:
        assert models.default == ""
        with pytest.raises(ModelNotFound, match="no embedding model is loaded"):
            models.for_name("")


async def test_embed_tells_what_made_the_vectors_and_how_many_tokens_they_took() -> None:
    async with loaded_models("one", "two") as models:
        embedded = await models.embed("two", ["a b", "c"], is_query=True)
    assert embedded.vectors.shape == (2, 64)
    assert (embedded.token_count, embedded.model.name) == (3, "two")


async def test_models_are_loaded_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def load(config: ModelConfig) -> Loaded:
        together.wait()  # Breaks, and with it the test, unless all three are in here at once.
        return loaded(config)

    configs = [ModelConfig(name=name, reference="/") for name in ("a", "b", "c")]
    models = await EmbeddingModels.load(configs, load=load, start=started)
    await models.warm()
    await models.close()
    assert list(models.models) == ["a", "b", "c"]


async def test_one_model_that_cannot_be_loaded_fails_them_all_and_leaves_no_thread() -> None:
    def load(config: ModelConfig) -> Loaded:
        if config.name == "bad":
            raise FailedPrecondition("no such folder")
        return loaded(config)

    configs = [ModelConfig(name=name, reference="/") for name in ("good", "bad")]
    with pytest.raises(FailedPrecondition, match="no such folder"):
        await EmbeddingModels.load(configs, load=load, start=started)
    assert not [each for each in threading.enumerate() if each.name == "embedding"]


def test_every_mismatch_is_told_at_once_with_what_to_do() -> None:
    models = [CountingEmbedder("f1", "one").model, CountingEmbedder("f2", "two").model]
    fitting = [collection("fits", "one", "f1"), collection("own-vectors", "", "")]
    check_fingerprints(fitting, models)
    wrong = [collection("old", "two", "f0"), collection("orphan", "three", "f3")]
    with pytest.raises(EmbeddingMismatch) as raised:
        check_fingerprints([*fitting, *wrong], models)
    message = raised.value.message
    assert "2 collections" in message
    assert "'old' was made with f0, and f2 is loaded" in message
    assert "'orphan' was made with f3, and no model 'three' is loaded" in message
    assert "'fits'" not in message
    assert "ingest them again" in message
