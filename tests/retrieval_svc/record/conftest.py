from collections.abc import AsyncIterator

import pytest

from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import Collection
from tests.retrieval_svc.postgres import database_url, postgres, postgres_url, sqlite_url
from tests.retrieval_svc.record.batches import SPEC

__all__ = ["database_url", "postgres", "postgres_url", "sqlite_url"]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    async with open_store(database_url) as opened:
        yield opened


@pytest.fixture
async def docs(store: SqlStore) -> Collection:
    return await store.create_collection(SPEC)
