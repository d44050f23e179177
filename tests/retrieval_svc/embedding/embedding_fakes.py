"""What the tests of this folder share: an embedder that remembers, counts of the cache, and embeddings over them."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import TracerProvider

from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.cache import VectorCache
from retrieval_svc.embedding.embedder import Embedder, Purpose
from retrieval_svc.embedding.prompts import NO_PROMPTS, Prompts
from retrieval_svc.values import EmbeddingModel, Matrix
from tests.retrieval_svc.fakes import DIMENSION, WINDOW_TOKENS, WordEmbedder


class CountingEmbedder(WordEmbedder):
    """Has a name, knows all texts that it embedded, and fails on the text "fail"."""

    def __init__(self, fingerprint: str = "words/1", name: str = "words") -> None:
        super().__init__(fingerprint)
        self.model = EmbeddingModel(name=name, dimension=DIMENSION, window_tokens=WINDOW_TOKENS, fingerprint=fingerprint)

    def embed(self, texts: Sequence[str]) -> Matrix:
        if "fail" in texts:
            raise RuntimeError("asked to fail")
        return super().embed(texts)

    @property
    def texts(self) -> list[str]:
        return [text for texts in self.passes for text in texts]


class Counts:
    """Cache statistics to look at."""

    def __init__(self) -> None:
        self.hit = self.missed = 0

    def hits(self, count: int, purpose: Purpose) -> None:
        self.hit += count

    def misses(self, count: int, purpose: Purpose) -> None:
        self.missed += count


def embeddings_over(
    embedder: Embedder,
    *,
    prompts: Prompts = NO_PROMPTS,
    cache: VectorCache | None = None,
    provider: TracerProvider | None = None,
    query_waiting_max: int = 64,
) -> Embeddings:
    return Embeddings(
        embedder,
        tracer=(provider or TracerProvider()).get_tracer("test"),
        query_batch_max=8,
        query_waiting_max=query_waiting_max,
        write_batch_max=4,
        pass_tokens_max=20,
        prompts=prompts,
        cache=cache,
    )
