from collections.abc import AsyncIterator

import pytest

from retrieval_svc.record.store import SqlStore, open_store
from tests.retrieval_svc.postgres import database_url, postgres, postgres_url, sqlite_url

__all__ = ["database_url", "postgres", "postgres_url", "sqlite_url"]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    async with open_store(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite_store(sqlite_url: str) -> AsyncIterator[SqlStore]:
    async with open_store(sqlite_url) as opened:
        yield opened
