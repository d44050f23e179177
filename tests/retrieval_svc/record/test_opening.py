"""A record that a service cannot start with: said in one line, with what to set."""

import asyncio
from pathlib import Path

import pytest

from penstock.errors import BackendUnavailable, FailedPrecondition, PenstockError
from retrieval_svc.record.database import URL_SETTING
from retrieval_svc.record.store import open_store
from tests.retrieval_svc.postgres import Cluster
from tests.retrieval_svc.processes import start


async def refused(url: str) -> PenstockError:
    with pytest.raises(PenstockError) as told:
        async with open_store(url):
            pass
    assert URL_SETTING in told.value.message
    assert "secret" not in told.value.message
    assert "\n" not in told.value.message
    return told.value


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://ann:secret@db/x",
        "mysql+aiomysql://ann:secret@db/x",
        "postgresql://ann:secret@db/x",
        "postgresql+psycopg://ann:secret@db/x",
        "postgresql+asyncpg://ann:secret@db:port/x",
        "sqlite:///x.db",
    ],
)
async def test_a_url_that_no_record_can_have_is_a_fault_of_the_setting(url: str) -> None:
    assert isinstance(await refused(url), FailedPrecondition)


async def test_a_database_that_cannot_be_reached_is_named() -> None:
    error = await refused("postgresql+asyncpg://ann:secret@127.0.0.1:1/x")
    assert isinstance(error, BackendUnavailable)
    assert "postgresql+asyncpg://ann:***@127.0.0.1:1/x cannot be used: [Errno 111]" in error.message


async def test_what_postgresql_refuses_is_told_in_its_words(postgres: Cluster, postgres_url: str) -> None:
    error = await refused(postgres_url.replace("penstock@", "stranger:secret@"))
    assert 'role "stranger" does not exist' in error.message
    error = await refused(postgres.url("nowhere"))
    assert 'database "nowhere" does not exist' in error.message


@pytest.mark.e2e
@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+asyncpg://ann:secret@127.0.0.1:1/x"])
async def test_the_service_leaves_with_that_line_and_no_traceback(url: str, tmp_path: Path) -> None:
    process = await start(tmp_path, database_url=url, log_format="text")
    _, log = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    lines = log.decode().splitlines()
    assert [line for line in lines if "could not start" in line and URL_SETTING in line] == lines[-1:]
    assert not [line for line in lines if "Traceback" in line or "secret" in line]
