"""What the dialect keeps of the past is bounded: messages, jobs, and the faces of flows."""

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.job_store import open_job_store
from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Ran, ask
from gateway.langflow_api.face import Face
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.jobs import FRAMES_MAX, Job, Jobs, Status, working
from gateway.store import open_store
from gateway.validation import validate
from penstock.errors import Overloaded
from tests.gateway.langflow_api.flows import TRIVIAL_ID, trivial


@pytest.fixture
def face() -> Face:
    return Face("trivial", validate(json.dumps(trivial())))


def told(face: Face, session: str, text: str = "hi") -> tuple[Telling, Ran]:
    asked = ask(face, input_value=text, input_type="chat", session=session)
    return Telling(asked), Ran(texts={"ChatOutput-ccccc": f"Echo: {text}"})


def job(owner: str = "", **more: Any) -> Job:
    return Job(owner=owner, flow_id="f", shown_flow_id="f", session="s", **more)


def test_messages_are_forgotten_by_number_size_and_age(face: Face) -> None:
    now = [0.0]
    log = MessageLog(sessions_max=3, runs_max=2, bytes_max=40_000, expiry_s=10, now=lambda: now[0])
    for session in ("a", "b", "c", "d"):
        log.add(*told(face, session))
    assert log.sessions("") == ["d", "c", "b"]
    for number in range(3):
        log.add(*told(face, "b", str(number)))
    assert len(log.rows("", session="b")) == 4
    log.add(*told(face, "e", "x" * 20_000))
    log.add(*told(face, "g", "y" * 5_000))
    assert log.sessions("")[0] == "g"
    assert len(log.sessions("")) < 4
    now[0] = 11
    assert (log.sessions(""), log.rows("")) == ([], [])
    assert log._bytes == 0


def test_a_message_is_told_at_the_time_of_its_run(face: Face) -> None:
    log = MessageLog()
    telling, ended = told(face, "s")
    log.add(telling, ended)
    first = [row.render() for row in log.rows("")]
    assert [row.render() for row in log.rows("")] == first
    assert [json.loads(row)["flow_id"] for row in first] == [TRIVIAL_ID] * 2


async def test_only_so_many_jobs_run_and_wait_and_leaving_cancels_them(tmp_path: Path) -> None:
    running: list[Job] = []
    started = [job() for _ in range(4)]

    async def work(mine: Job) -> None:
        running.append(mine)
        await asyncio.sleep(60)

    async with open_store("", tmp_path) as flows:
        store = await open_job_store(flows, kept_max=10, expiry_s=60)
        async with working(Jobs(store, running_max=2, waiting_max=1)) as jobs:
            for each in started[:3]:
                await jobs.start(each, work)
            with pytest.raises(Overloaded):
                await jobs.start(started[3], work)
            with pytest.raises(Overloaded):
                jobs.start_unkept(started[3], work)
            await asyncio.sleep(0.01)
            assert running == started[:2]
            assert [each.status for each in started[:3]] == [Status.IN_PROGRESS, Status.IN_PROGRESS, Status.QUEUED]
            assert (await jobs.stop(started[2])).status is Status.CANCELLED
        assert [each.status for each in started[:3]] == [Status.CANCELLED] * 3
        assert [(await store.get(each.id)).job.status for each in started[:3]] == [Status.CANCELLED] * 3


def test_of_a_long_run_the_first_events_are_kept() -> None:
    long = job()
    for number in range(FRAMES_MAX + 10):
        long.add(b"%d" % number)
    assert len(long.frames) == FRAMES_MAX


def test_memory_is_flat_over_many_runs(face: Face) -> None:
    log = MessageLog(sessions_max=50)
    for number in range(100):
        log.add(*told(face, f"s{number}"))
    gc.collect()
    before = len(gc.get_objects())
    for number in range(2000):
        log.add(*told(face, f"s{number}"))
    gc.collect()
    assert len(gc.get_objects()) < before + 200
