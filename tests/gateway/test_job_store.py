"""Runs in the background, kept in SQL for all processes of a gateway."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.job_store import JOBS, SqlJobStore, open_job_store
from gateway.langflow_api.jobs import GONE, GONE_S, Job, Jobs, Status, id_for, working
from gateway.store import SqlFlowStore, open_store


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[SqlFlowStore]:
    async with open_store("", tmp_path) as opened:
        yield opened


@pytest.fixture
async def store(flows: SqlFlowStore) -> SqlJobStore:
    return await open_job_store(flows, kept_max=3, expiry_s=60)


def job(owner: str = "ann", **more: str) -> Job:
    return Job(owner=owner, flow_id="f", shown_flow_id="shown", session="s", **more)


async def test_what_is_kept_of_a_job_comes_back(store: SqlJobStore) -> None:
    kept = job()
    assert await store.create(kept)
    assert not await store.create(kept)
    kept.status, kept.result, kept.error, kept.frames = Status.FAILED, b'{"a":1}', "why", [b'{"n":1}', b'{"n":2}']
    await store.put(kept)
    found = await store.get(kept.id)
    assert found is not None
    assert replace(found.job, changed=kept.changed) == kept
    assert await store.get("another") is None


async def test_jobs_are_forgotten_by_number_and_age(flows: SqlFlowStore) -> None:
    store = await open_job_store(flows, kept_max=3, expiry_s=0.2)
    every = [job() for _ in range(5)]
    for number, each in enumerate(every):
        each.created += timedelta(milliseconds=number)
        await store.create(each)
    assert [await store.get(each.id) is not None for each in every] == [False, False, True, True, True]
    await asyncio.sleep(0.25)
    assert await store.get(every[4].id) is None
    await store.create(job())
    async with flows.connected() as connection:
        assert len((await connection.execute(JOBS.select())).all()) == 1


async def test_another_process_asks_follows_and_stops(store: SqlJobStore) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work(mine: Job) -> None:
        mine.add(b'{"n":1}')
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with working(Jobs(store)) as here, working(Jobs(store)) as there:
        mine = await here.start(job(), work)
        await begun.wait()
        seen = await there.get(mine.id, "ann")
        assert seen is not None
        assert not seen.status.is_final
        assert await there.get(mine.id, "bob") is None
        stopped = await there.stop(seen)
        assert (stopped.status, stopped.frames, cancelled.is_set()) == (Status.CANCELLED, [b'{"n":1}'], True)


async def test_the_same_key_is_the_same_job_whichever_process_is_asked(store: SqlJobStore) -> None:
    async def work(mine: Job) -> None:
        mine.result = b"done"

    async with working(Jobs(store)) as here, working(Jobs(store)) as there:
        first = await here.start(job(id=id_for("ann", "k")), work)
        while not first.status.is_final:
            await first.changed.wait()
        again = await there.start(job(id=id_for("ann", "k")), work)
        assert (again.id, again.status, again.result) == (first.id, Status.COMPLETED, b"done")
    assert id_for("bob", "k") != id_for("ann", "k")


async def test_a_job_whose_process_has_died_has_failed(flows: SqlFlowStore, store: SqlJobStore) -> None:
    lost = job()
    await store.create(lost)
    long_ago = datetime.now(UTC) - timedelta(seconds=GONE_S + 1)
    async with flows.connected() as connection:
        await connection.execute(update(JOBS).values(seen_time=long_ago))
    found = await Jobs(store).get(lost.id, "ann")
    assert found is not None
    assert (found.status, found.error) == (Status.FAILED, GONE)
    await store.beat([lost.id])
    alive = await Jobs(store).get(lost.id, "ann")
    assert alive is not None
    assert alive.status is Status.QUEUED
