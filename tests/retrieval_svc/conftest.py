from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retrieval_svc.values import Metric
from tests.retrieval_svc.fakes import Core, WordEmbedder, running_core


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core with two collections: "texts", which the service embeds, and "vectors" of 3 components from the caller."""
    async with running_core(tmp_path, embedder=WordEmbedder()) as running:
        await running.catalog.create("texts", embedding_model="", dimension=0, metric=Metric.COSINE)
        await running.catalog.create("vectors", embedding_model="", dimension=3, metric=Metric.INNER_PRODUCT)
        yield running
