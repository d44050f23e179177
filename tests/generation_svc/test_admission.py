import asyncio

import pytest

from generation_svc.admission import Admission
from penstock.errors import Overloaded


class Holder:
    """Holds a slot until told to let go."""

    def __init__(self, admission: Admission, order: list[str], name: str = "") -> None:
        self._admission = admission
        self._order = order
        self._name = name
        self._release = asyncio.Event()
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        async with self._admission.slot():
            self._order.append(self._name)
            await self._release.wait()

    async def let_go(self) -> None:
        self._release.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_that_wait_get_in_in_the_order_in_which_they_came() -> None:
    admission, order = Admission(running_max=1, waiting_max=3), []
    holders = [Holder(admission, order, name) for name in "abcd"]
    await settle()
    assert (admission.running, admission.waiting) == (1, 3)
    for holder in holders:
        await holder.let_go()
    assert order == ["a", "b", "c", "d"]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_beyond_the_queue_a_request_is_refused_at_once_and_told_when_to_come_back() -> None:
    admission, order = Admission(running_max=1, waiting_max=1), []
    holders = [Holder(admission, order), Holder(admission, order)]
    await settle()
    with pytest.raises(Overloaded) as refused:
        async with asyncio.timeout(0.05), admission.slot():
            pytest.fail("there was no room")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    assert refused.value.metadata == {"running_max": "1", "waiting_max": "1"}
    for holder in holders:
        await holder.let_go()


async def test_one_that_leaves_the_queue_makes_room_and_takes_no_slot() -> None:
    admission, order = Admission(running_max=1, waiting_max=1), []
    first, second = Holder(admission, order, "first"), Holder(admission, order, "second")
    await settle()
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    assert admission.waiting == 0
    third = Holder(admission, order, "third")
    await first.let_go()
    await third.let_go()
    assert order == ["first", "third"]
    assert admission.running == 0


async def test_one_that_is_cancelled_as_its_turn_comes_passes_the_slot_on() -> None:
    admission, order = Admission(running_max=1, waiting_max=2), []
    first, second, third = (Holder(admission, order, name) for name in ("first", "second", "third"))
    await settle()
    first._release.set()
    await asyncio.sleep(0)  # First leaves and hands its slot to second, which has not run yet.
    second.task.cancel()
    await asyncio.gather(first.task, second.task, return_exceptions=True)
    await third.let_go()
    assert order[0] == "first"
    assert order[-1] == "third"
    assert admission.running == 0


async def test_an_error_inside_gives_the_slot_back() -> None:
    admission = Admission(running_max=1, waiting_max=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"):
            async with admission.slot():
                raise ValueError("inside")
    assert admission.running == 0


async def test_the_hint_grows_with_how_long_slots_are_held() -> None:
    admission = Admission(running_max=1, waiting_max=0)
    hints = []
    for held_s in (30.0, 300.0):
        admission._held_s = held_s
        async with admission.slot():
            with pytest.raises(Overloaded) as refused:
                async with admission.slot():
                    pass
        hints.append(refused.value.retry_after_s)
    assert hints == [30.0, 60.0]
