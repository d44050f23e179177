import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest

from generation_svc.admission import Admission
from penstock.deadline import within
from penstock.errors import DeadlineTooShort, InvalidArgument, Overloaded


class Holder:
    """Holds slots until told to let go."""

    def __init__(self, admission: Admission, order: list[str], name: str = "", **asked: Any) -> None:
        self._admission = admission
        self._order = order
        self._name = name
        self._asked = asked
        self._release = asyncio.Event()
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        async with self._admission.slot(**self._asked):
            self._order.append(self._name)
            await self._release.wait()

    async def let_go(self) -> None:
        self._release.set()
        await self.task


async def let_all_go(holders: Iterable[Holder]) -> None:
    for holder in holders:
        holder._release.set()
    await asyncio.gather(*(holder.task for holder in holders))


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


async def test_tenants_share_the_slots_whoever_asks_more_often() -> None:
    admission, order = Admission(running_max=1, waiting_max=20), []
    holders = [Holder(admission, order, "flood", tenant="flood") for _ in range(8)]
    await settle()
    holders += [Holder(admission, order, "quiet", tenant="quiet") for _ in range(2)]
    await settle()
    await let_all_go(holders)
    assert order[:5] == ["flood", "quiet", "flood", "quiet", "flood"]
    assert order.count("flood") == 8


async def test_a_tenant_with_fewer_slots_running_goes_first() -> None:
    admission, order = Admission(running_max=3, waiting_max=9), []
    running = [Holder(admission, order, f"a{number}", tenant="a") for number in range(3)]
    await settle()
    waiting = [
        Holder(admission, order, "a3", tenant="a"),
        *(Holder(admission, order, name, tenant="b") for name in ("b0", "b1")),
    ]
    await settle()
    await running[0].let_go()
    await settle()
    assert order[3:] == ["b0"]  # It had none running, the other two.
    await running[1].let_go()
    await settle()
    assert order[3:] == ["b0", "a3"]  # Both have one, and it is longer ago that the other was served.
    await let_all_go([running[2], *waiting])


async def test_a_higher_priority_goes_before_what_has_waited_longer_of_the_same_tenant() -> None:
    admission, order = Admission(running_max=1, waiting_max=9), []
    holders = [Holder(admission, order, "first")]
    await settle()
    for name, priority in (("low", -5), ("plain", 0), ("high", 5), ("higher", 6), ("high too", 5)):
        holders.append(Holder(admission, order, name, priority=priority))
        await settle()
    await let_all_go(holders)
    assert order == ["first", "higher", "high", "high too", "plain", "low"]


async def test_a_priority_does_not_take_another_tenants_turn() -> None:
    admission, order = Admission(running_max=1, waiting_max=9), []
    holders = [Holder(admission, order, "running", tenant="greedy")]
    await settle()
    holders += [Holder(admission, order, "greedy", tenant="greedy", priority=100) for _ in range(2)]
    holders.append(Holder(admission, order, "modest", tenant="modest", priority=-100))
    await settle()
    await let_all_go(holders)
    assert order == ["running", "modest", "greedy", "greedy"]


async def test_a_full_queue_takes_a_newcomer_in_place_of_the_last_of_who_has_most_in_it() -> None:
    admission, order = Admission(running_max=1, waiting_max=4), []
    flood = [Holder(admission, order, f"flood {number}", tenant="flood") for number in range(5)]
    await settle()
    quiet = Holder(admission, order, "quiet", tenant="quiet")
    await settle()
    assert admission.waiting == 4
    with pytest.raises(Overloaded):
        await flood[-1].task
    with pytest.raises(Overloaded):
        await Holder(admission, order, "one more", tenant="flood").task
    await let_all_go([*flood[:-1], quiet])
    assert order == ["flood 0", "quiet", "flood 1", "flood 2", "flood 3"]
    assert (admission.running, admission.waiting, admission._tenants) == (0, 0, {})


async def test_a_full_queue_takes_a_higher_priority_in_place_of_a_lower_one_of_the_same_tenant() -> None:
    admission, order = Admission(running_max=1, waiting_max=2), []
    first, plain = Holder(admission, order, "first"), Holder(admission, order, "plain")
    low = Holder(admission, order, "low", priority=-1)
    await settle()
    urgent = Holder(admission, order, "urgent", priority=1)
    with pytest.raises(Overloaded):
        await low.task
    await let_all_go([first, plain, urgent])
    assert order == ["first", "urgent", "plain"]


async def test_several_slots_are_taken_together_and_none_slips_in_before() -> None:
    admission, order = Admission(running_max=4, waiting_max=9), []
    small = [Holder(admission, order, f"small {number}") for number in range(3)]
    await settle()
    large, late = Holder(admission, order, "large", slots=4), Holder(admission, order, "late")
    await settle()
    assert order == ["small 0", "small 1", "small 2"]
    await let_all_go(small)
    await settle()
    assert (order[3:], admission.running) == (["large"], 4)
    await let_all_go([large, late])
    assert order[-1] == "late"


async def test_who_waits_behind_one_that_needs_many_slots_moves_up_when_that_one_leaves() -> None:
    admission, order = Admission(running_max=2, waiting_max=9), []
    first = Holder(admission, order, "first")
    await settle()
    large, late = Holder(admission, order, "large", slots=2), Holder(admission, order, "late")
    await settle()
    large.task.cancel()
    await settle()
    assert order == ["first", "late"]
    await let_all_go([first, late])
    assert admission.running == 0


async def test_more_slots_than_there_are_can_never_be_had() -> None:
    with pytest.raises(InvalidArgument) as refused:
        async with Admission(running_max=2, waiting_max=9).slot(slots=3):
            pytest.fail("there are two")
    assert refused.value.metadata["running_max"] == "2"


async def test_a_deadline_before_its_turn_is_refused_on_arrival_once_it_is_known_how_long_slots_are_held() -> None:
    now = [0.0]
    admission, order = Admission(running_max=1, waiting_max=9, clock=lambda: now[0]), []
    for _ in range(60):
        async with admission.slot():
            now[0] += 10.0
    holder = Holder(admission, order)
    await settle()
    with within(5.0), pytest.raises(DeadlineTooShort) as refused:
        async with admission.slot():
            pytest.fail("its turn comes in ten seconds")
    assert 9 < float(refused.value.metadata["wait_s"]) <= 10
    assert refused.value.retry_after_s == pytest.approx(5.0, abs=0.2)
    with within(15.0):
        patient = Holder(admission, order)
        await settle()
    assert admission.waiting == 1
    await let_all_go([holder, patient])


async def test_before_it_is_known_how_long_slots_are_held_nobody_is_refused_for_a_deadline() -> None:
    admission, order = Admission(running_max=1, waiting_max=9), []
    holder = Holder(admission, order)
    await settle()
    with within(0.001):
        hopeful = Holder(admission, order)
        await settle()
    assert admission.waiting == 1
    await let_all_go([holder, hopeful])


async def test_whatever_comes_and_goes_no_slot_and_no_tenant_is_left_behind() -> None:
    drawn = random.Random(4)
    admission, order = Admission(running_max=3, waiting_max=5), []
    alive: list[Holder] = []
    made: list[Holder] = []
    for _ in range(2000):
        act = drawn.random()
        if act < 0.5 or not alive:
            tenant, slots = drawn.choice("abc"), drawn.choice((1, 1, 1, 2, 3))
            made.append(Holder(admission, order, tenant=tenant, priority=drawn.randint(-2, 2), slots=slots))
            alive.append(made[-1])
        elif act < 0.75:
            alive.pop(drawn.randrange(len(alive))).task.cancel()
        else:
            alive.pop(drawn.randrange(len(alive)))._release.set()
        for _ in range(drawn.randint(0, 3)):
            await asyncio.sleep(0)
        assert 0 <= admission.running <= 3
        assert 0 <= admission.waiting <= 5
    for holder in alive:
        holder._release.set()
    await asyncio.gather(*(holder.task for holder in made), return_exceptions=True)
    assert (admission.running, admission.waiting, admission._tenants) == (0, 0, {})
