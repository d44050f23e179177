from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retrieval_svc.catalog import Wanted
from tests.retrieval_svc.fakes import Core, WordEmbedder, running_core


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core with two collections: "texts", embedded by words, and "vectors" of three components."""
    async with running_core(tmp_path, embedder=WordEmbedder()) as running:
        await running.catalog.create(Wanted(id="texts"))
        await running.catalog.create(Wanted(id="vectors", dimension=3))
        yield running
