"""The core over a pooling model, through the servicer. A real one: test_vllm_pooling."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from generation_svc.admission import Admission
from generation_svc.engine import Embeddings, Feature, Load, ModelInfo, Scores, Usage
from generation_svc.pooling import Pooling
from generation_svc.servicer import GenerationServicer
from penstock.errors import EmptyText, EngineFailed, InvalidArgument, Overloaded, UnsupportedFeature
from penstock.generation.v1 import generation_pb2 as pb

MODEL = ModelInfo(name="small", engine="fake-pooling", features=frozenset({Feature.EMBED, Feature.RERANK}))


class FakePooling:
    """A vector is a text's length, a score how many of its letters the query has."""

    def __init__(self, model: ModelInfo = MODEL) -> None:
        self.model = model
        self.healthy = True

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        vectors = tuple(len(text).to_bytes(4, "little") for text in texts)
        return Embeddings(vectors=vectors, usage=Usage(input_tokens=len(texts)))

    async def score(self, query: str, documents: Sequence[str]) -> Scores:
        scores = tuple(float(len(set(query) & set(document))) for document in documents)
        return Scores(scores=scores, usage=Usage(input_tokens=7))

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.model,)

    def health(self) -> bool:
        return self.healthy

    def load(self) -> Load:
        return Load(running=0, waiting=0)

    async def close(self) -> None: ...


def servicer(engine: FakePooling | None = None, admission: Admission | None = None) -> GenerationServicer:
    return GenerationServicer(
        Pooling(engine=engine or FakePooling(), admission=admission or Admission(running_max=1, waiting_max=0))
    )


async def test_texts_become_vectors_in_their_order() -> None:
    answer = await servicer().Embed(pb.EmbedRequest(model="models/default", texts=["a", "bcd"]), None)
    assert [int.from_bytes(vector.values, "little") for vector in answer.vectors] == [1, 3]
    assert (answer.usage.input_tokens, answer.model) == (2, "models/small")


async def test_documents_get_scores_in_their_order() -> None:
    answer = await servicer().Rerank(pb.RerankRequest(model="models/small", query="ab", documents=["x", "ab", "b"]), None)
    assert list(answer.scores) == [0.0, 2.0, 1.0]


async def test_what_the_model_cannot_do_is_refused_by_name() -> None:
    only_embeds = FakePooling(replace(MODEL, features=frozenset({Feature.EMBED})))
    with pytest.raises(UnsupportedFeature, match="has no rerank"):
        await servicer(only_embeds).Rerank(pb.RerankRequest(model="models/default", query="a", documents=["a"]), None)
    with pytest.raises(UnsupportedFeature, match="has no generate"):
        await servicer().Generate(pb.GenerateRequest(model="models/default", prompt="Hi"), None)
    with pytest.raises(UnsupportedFeature, match="has no generate"):
        async for _ in servicer().StreamGenerate(pb.StreamGenerateRequest(model="models/default", prompt="Hi"), None):
            pass


@pytest.mark.parametrize(
    ("texts", "field"), [([], "texts"), (["a", " "], "texts[1]"), (["a"] * 257, "texts")], ids=["none", "empty", "too many"]
)
async def test_texts_that_make_no_sense_are_refused_by_their_place(texts: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await servicer().Embed(pb.EmbedRequest(model="models/default", texts=texts), None)
    assert refused.value.metadata["field"] == field


async def test_a_query_of_nothing_is_refused() -> None:
    with pytest.raises(EmptyText):
        await servicer().Rerank(pb.RerankRequest(model="models/default", query=" ", documents=["a"]), None)


async def test_calls_share_the_queue_and_a_dead_engine_is_asked_nothing() -> None:
    engine, admission = FakePooling(), Admission(running_max=1, waiting_max=0)
    asked = pb.EmbedRequest(model="models/default", texts=["a"])
    async with admission.slot():
        with pytest.raises(Overloaded):
            await servicer(engine, admission).Embed(asked, None)
    engine.healthy = False
    with pytest.raises(EngineFailed):
        await servicer(engine, admission).Embed(asked, None)
