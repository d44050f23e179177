"""The reference of searches by text: the service's embedding model called by a loop in this process."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

from retrieval_svc.embedding.embedder import Embedder
from retrieval_svc.embedding.loading import load
from retrieval_svc.settings import RetrievalSettings


class EmbedderReference:
    """The model, loaded as the service's settings say: on the same backend, from what the service prepared."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embed(self, *, texts: list[str], batch: int, seconds: float) -> dict[str, float]:
        """Embeds over and over, `batch` texts a call. Microseconds a text: CPU time and wall time."""
        batches = cycle([texts[at : at + batch] for at in range(0, len(texts) - batch + 1, batch)])
        self._embedder.embed(next(batches))
        count, began, cpu_began = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            self._embedder.embed(next(batches))
            count += batch
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return {"cpu_us": 1e6 * cpu_s / count, "wall_us": 1e6 * wall_s / count}


@asynccontextmanager
async def serving() -> AsyncIterator[Mapping[str, Any]]:
    """The tasks of this role, once the model is loaded."""
    settings = RetrievalSettings()
    config = settings.all_embedding_models[0].config
    loaded = load(config, cache_dir=settings.resolved_model_cache_dir, threads=settings.embedding_threads)
    yield {"embed": EmbedderReference(loaded.embedder).embed}
