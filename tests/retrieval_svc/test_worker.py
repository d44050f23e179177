import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from penstock.errors import NotReady, Overloaded
from retrieval_svc.worker import Lane, Worker


class Bench:
    """Work that waits until the test lets it go on, and notes its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def work(self, jobs: list[int]) -> list[int | Exception]:
        self.batches.append(jobs)
        self.begun.release()
        self.go_on.acquire()
        return [ValueError(job) if job < 0 else job * 10 for job in jobs]

    def free(self, turns: int = 100) -> None:
        for _ in range(turns):
            self.go_on.release()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def worker(bench: Bench) -> AsyncIterator[Worker[int, int]]:
    lanes = [Lane(batch_max=3, waiting_max=4), Lane(batch_max=1, waiting_max=4)]
    running = Worker[int, int](name="bench", work=bench.work, lanes=lanes)
    yield running
    bench.free()
    await running.close()


async def occupied(worker: Worker[int, int], bench: Bench) -> asyncio.Task[int]:
    first = asyncio.create_task(worker.run(0))
    await asyncio.to_thread(bench.begun.acquire)
    return first


async def test_a_lone_job_is_done_alone_at_once(worker: Worker[int, int], bench: Bench) -> None:
    bench.free()
    assert await worker.run(7) == 70
    assert bench.batches == [[7]]


async def test_jobs_of_one_turn_of_the_loop_go_together(worker: Worker[int, int], bench: Bench) -> None:
    bench.free()
    assert await asyncio.gather(*map(worker.run, (1, 2, 3))) == [10, 20, 30]
    assert bench.batches == [[1, 2, 3]]


async def test_a_job_that_is_asked_for_as_the_worker_closes_is_done(bench: Bench) -> None:
    closing = Worker[int, int](name="bench", work=bench.work, lanes=[Lane(batch_max=3, waiting_max=4)])
    bench.free()
    asked = asyncio.create_task(closing.run(1))
    await asyncio.sleep(0)
    await closing.close()
    assert await asyncio.wait_for(asked, 5) == 10


async def test_what_waited_is_merged_up_to_the_limit_in_order(worker: Worker[int, int], bench: Bench) -> None:
    await occupied(worker, bench)
    waiting = [asyncio.create_task(worker.run(job)) for job in (1, 2, 3, 4)]
    await asyncio.sleep(0)
    bench.free()
    assert await asyncio.gather(*waiting) == [10, 20, 30, 40]
    assert bench.batches == [[0], [1, 2, 3], [4]]


async def test_lanes_take_turns(worker: Worker[int, int], bench: Bench) -> None:
    await occupied(worker, bench)
    bulk = [asyncio.create_task(worker.run(job, lane=1)) for job in (100, 101)]
    urgent = [asyncio.create_task(worker.run(job)) for job in (1, 2, 3, 4)]
    await asyncio.sleep(0)
    bench.free()
    await asyncio.gather(*bulk, *urgent)
    assert bench.batches == [[0], [100], [1, 2, 3], [101], [4]]


async def test_a_full_lane_refuses_at_once_and_says_when_to_come_back(worker: Worker[int, int], bench: Bench) -> None:
    await occupied(worker, bench)
    waiting = [asyncio.create_task(worker.run(job)) for job in (1, 2, 3, 4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await worker.run(5)
    assert refused.value.retry_after_s is not None
    assert refused.value.metadata == {"queue": "bench", "limit": "4"}
    always = asyncio.create_task(worker.run(6, always=True))
    bench.free()
    assert await asyncio.gather(*waiting, always) == [10, 20, 30, 40, 60]


async def test_a_job_whose_caller_left_is_not_begun(worker: Worker[int, int], bench: Bench) -> None:
    await occupied(worker, bench)
    leaving, staying = (asyncio.create_task(worker.run(job)) for job in (1, 2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    bench.free()
    assert await staying == 20
    assert bench.batches == [[0], [2]]
    assert leaving.cancelled()


async def test_an_outcome_that_is_an_exception_fails_its_own_caller_only(worker: Worker[int, int], bench: Bench) -> None:
    await occupied(worker, bench)
    bad, good = (asyncio.create_task(worker.run(job)) for job in (-1, 2))
    await asyncio.sleep(0)
    bench.free()
    assert await good == 20
    with pytest.raises(ValueError, match="-1"):
        await bad


async def test_work_that_raises_fails_its_batch_and_the_thread_goes_on() -> None:
    def work(jobs: list[int]) -> list[int | Exception]:
        return [100 // job for job in jobs]

    worker = Worker[int, int](name="division", work=work, lanes=[Lane(batch_max=1, waiting_max=9)])
    with pytest.raises(ZeroDivisionError):
        await worker.run(0)
    assert await worker.run(4) == 25
    await worker.close()


async def test_closing_does_what_waits_and_takes_nothing_more(worker: Worker[int, int], bench: Bench) -> None:
    first = await occupied(worker, bench)
    second = asyncio.create_task(worker.run(1))
    await asyncio.sleep(0)
    bench.free()
    await worker.close()
    assert [await first, await second] == [0, 10]
    with pytest.raises(NotReady):
        await worker.run(2)
