"""One backend of the embedding model, called by a loop in this process; "default" is sentence-transformers as it comes."""

import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval_svc.embedding.batching import plan_passes
from retrieval_svc.embedding.loading import ModelConfig, load
from retrieval_svc.embedding.preparing import Backend

Matrix = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Matrix]

DEFAULT: Final = "default"
PASS_TOKENS_MAX: Final = 512
"""As the service has it."""


class EmbeddingReference:
    """One backend with one thread: embeds texts alone, or all together as the service would put them into passes."""

    def __init__(self) -> None:
        self._alone: Embed | None = None
        self._together: Embed | None = None

    async def load(self, *, backend: str, reference: str, cache_dir: str) -> dict[str, Any]:
        """Loads, preparing first what is not prepared; seconds of it."""
        began = time.perf_counter()
        if backend == DEFAULT:
            self._alone = self._together = _default(reference)
        else:
            self._alone, self._together = _of_the_service(backend, reference, Path(cache_dir))
        self._alone(["The first pass is slower."])
        return {"seconds": time.perf_counter() - began}

    async def cost(self, *, texts: list[str], together: bool) -> dict[str, float]:
        """Milliseconds a text: CPU time and wall time."""
        assert self._alone is not None
        assert self._together is not None
        began, cpu_began = time.perf_counter(), time.process_time()
        if together:
            self._together(texts)
        else:
            for text in texts:
                self._alone([text])
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return {"cpu_ms": 1e3 * cpu_s / len(texts), "wall_ms": 1e3 * wall_s / len(texts)}

    async def vectors(self, *, texts: list[str]) -> str:
        """The texts' vectors as base64 of float32, one after the other."""
        assert self._together is not None
        return base64.b64encode(self._together(texts).tobytes()).decode()


def _default(reference: str) -> Embed:
    from retrieval_svc.embedding.sentence_transformer import open_transformer  # noqa: PLC0415  # Only this backend needs it.

    transformer = open_transformer(reference)
    return lambda texts: np.asarray(transformer.encode(list(texts), show_progress_bar=False), dtype=np.float32)


def _of_the_service(backend: str, reference: str, cache_dir: Path) -> tuple[Embed, Embed]:
    config = ModelConfig(name="bench", reference=reference, backend=Backend(backend))
    embedder = load(config, cache_dir=cache_dir, threads=1).embedder

    def cut(text: str) -> str:
        """What the default reads of it: the window's worth."""
        spans = embedder.token_spans(text)[: embedder.model.window_tokens]
        return text[: spans[-1][1]] if spans else text

    def together(texts: Sequence[str]) -> Matrix:
        kept = [cut(text) for text in texts]
        vectors = np.empty((len(kept), embedder.model.dimension), dtype=np.float32)
        for places in plan_passes([len(embedder.token_spans(text)) for text in kept], PASS_TOKENS_MAX):
            vectors[places] = embedder.embed([kept[at] for at in places])
        return vectors

    return (lambda texts: embedder.embed([cut(text) for text in texts])), together


@asynccontextmanager
async def serving() -> AsyncIterator[Mapping[str, Any]]:
    """The tasks of this role."""
    reference = EmbeddingReference()
    yield {"load": reference.load, "cost": reference.cost, "vectors": reference.vectors}
