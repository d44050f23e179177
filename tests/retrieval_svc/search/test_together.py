"""Ordinary searches that wait go on together, and each hears of its own faults alone."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from penstock.deadline import remaining_s, set_deadline
from penstock.errors import InvalidArgument, Overloaded, PenstockError, Unavailable
from retrieval_svc.search.calls import SearchCall, SearchResult
from retrieval_svc.search.together import Together
from retrieval_svc.values import Collection, CollectionSpec, Metric


def collection(uid: int = 1) -> Collection:
    spec = CollectionSpec(id="c", embedding_model="", embedding_fingerprint="", dimension=1, metric=Metric.INNER_PRODUCT)
    return Collection(uid=uid, spec=spec, chunk_count=0)


def call(number: int) -> SearchCall:
    return SearchCall(vector=b"0000", top_k=number)


class Answering:
    """Answers each search with its top_k in the score, group after group, as `gates` are opened."""

    def __init__(self, *, held: bool = False, group_max: int = 64, waiting_max: int = 100) -> None:
        self.groups: list[list[int]] = []
        self.deadlines_s: list[float] = []
        self.error: PenstockError | None = None
        self.wrong: set[int] = set()
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()
        self.together = Together(self.answer_all, group_max=group_max, waiting_max=waiting_max)

    async def answer_all(self, _: Collection, calls: Sequence[SearchCall]) -> list[SearchResult]:
        numbers = [each.top_k for each in calls]
        self.groups.append(numbers)
        self.deadlines_s.append(remaining_s(1e6))
        await self.gate.wait()
        if self.error:
            raise self.error
        if self.wrong & set(numbers):
            raise InvalidArgument(f"wrong: {sorted(self.wrong & set(numbers))}")
        return [SearchResult(chunks=(), scores=np.array([number], np.float32)) for number in numbers]

    async def search(self, number: int, uid: int = 1) -> int:
        return int((await self.together.search(collection(uid), call(number))).scores[0])


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_of_the_loop_goes_on_together_and_is_told_apart_again() -> None:
    answering = Answering()
    assert await asyncio.gather(*map(answering.search, range(1, 6))) == [1, 2, 3, 4, 5]
    assert answering.groups == [[1, 2, 3, 4, 5]]


async def test_what_comes_while_a_group_is_under_way_waits_and_is_the_next() -> None:
    answering = Answering(held=True)
    asked = []
    for number in range(1, 6):
        asked.append(asyncio.create_task(answering.search(number)))
        await settle()
    assert answering.groups == [[1]]
    answering.gate.set()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]
    assert answering.groups == [[1], [2, 3, 4, 5]]


async def test_collections_do_not_wait_for_one_another() -> None:
    answering = Answering(held=True)
    asked = [asyncio.create_task(answering.search(number, uid)) for uid in (1, 2) for number in (1, 2)]
    await settle()
    assert answering.groups == [[1, 2], [1, 2]]
    answering.gate.set()
    assert await asyncio.gather(*asked) == [1, 2, 1, 2]


async def test_a_group_is_not_larger_than_it_may_be() -> None:
    answering = Answering(group_max=2)
    assert await asyncio.gather(*map(answering.search, range(1, 6))) == [1, 2, 3, 4, 5]
    assert answering.groups == [[1, 2], [3, 4], [5]]


async def test_who_is_at_fault_hears_of_it_and_the_others_get_their_answers() -> None:
    answering = Answering()
    answering.wrong = {2}
    one, two, three = await asyncio.gather(*map(answering.search, (1, 2, 3)), return_exceptions=True)
    assert (one, three) == (1, 3)
    assert isinstance(two, InvalidArgument)
    assert answering.groups == [[1, 2, 3], [1], [2], [3]]


async def test_what_is_nobodys_fault_is_told_to_all_and_not_tried_again() -> None:
    answering = Answering()
    answering.error = Unavailable("away")
    found = await asyncio.gather(*map(answering.search, (1, 2)), return_exceptions=True)
    assert [type(each) for each in found] == [Unavailable, Unavailable]
    assert answering.groups == [[1, 2]]


async def test_a_defect_reaches_every_caller() -> None:
    async def fail(_: Collection, calls: Sequence[SearchCall]) -> list[SearchResult]:
        raise ZeroDivisionError

    together = Together(fail, group_max=9, waiting_max=9)
    for _ in range(3):  # And the group that failed holds up no other.
        with pytest.raises(ZeroDivisionError):
            await together.search(collection(), call(1))


async def test_callers_that_left_are_not_searched_for() -> None:
    answering = Answering(held=True)
    asked = [asyncio.create_task(answering.search(number)) for number in (1, 2)]
    await settle()
    asked += [asyncio.create_task(answering.search(number)) for number in (3, 4, 5)]
    await settle()
    asked[3].cancel()
    answering.gate.set()
    await asyncio.gather(*asked, return_exceptions=True)
    assert answering.groups == [[1, 2], [3, 5]]


async def test_too_many_that_wait_are_refused_with_a_time_to_come_back() -> None:
    answering = Answering(held=True, waiting_max=2)
    asked = [asyncio.create_task(answering.search(number)) for number in (1, 2)]
    await settle()
    asked += [asyncio.create_task(answering.search(number)) for number in (3, 4)]
    await settle()
    with pytest.raises(Overloaded) as refused:
        await answering.search(5)
    assert refused.value.retry_after_s
    answering.gate.set()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4]


async def test_a_group_that_hangs_holds_up_the_next_for_a_moment_only() -> None:
    answering = Answering(held=True)
    stuck = asyncio.create_task(answering.search(1))
    await settle()
    following = asyncio.create_task(answering.search(2))
    async with asyncio.timeout(10):
        while len(answering.groups) < 2:
            await asyncio.sleep(0.01)
    answering.gate.set()
    assert await asyncio.gather(stuck, following) == [1, 2]


async def test_a_group_has_the_time_that_its_most_patient_caller_has() -> None:
    answering = Answering()

    async def in_a_hurry(number: int, seconds: float) -> int:
        set_deadline(seconds)
        return await answering.search(number)

    await asyncio.gather(in_a_hurry(1, 5), in_a_hurry(2, 500), in_a_hurry(3, 50))
    assert 400 < answering.deadlines_s[0] <= 500
