import asyncio

import pytest

from retrieval_svc.unbroken import unbroken


async def test_work_ends_before_a_cancellation_goes_through() -> None:
    done: list[str] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.append("work")

    async def caller() -> None:
        try:
            await unbroken(work())
        finally:
            done.append("caller")

    task = asyncio.create_task(caller())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work", "caller"]


async def test_results_and_errors_come_through() -> None:
    async def seven() -> int:
        return 7

    async def fail() -> None:
        message = "no"
        raise ValueError(message)

    assert await unbroken(seven()) == 7
    with pytest.raises(ValueError, match="no"):
        await unbroken(fail())


async def test_an_error_after_the_caller_left_is_not_a_warning() -> None:
    begun = asyncio.Event()

    async def fail() -> None:
        begun.set()
        await asyncio.sleep(0.01)
        message = "nobody hears this"
        raise ValueError(message)

    task = asyncio.create_task(unbroken(fail()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
