"""A coordinator in slot 0, and slot 1 behind real gRPC servers that are slow, dead, overloaded or behind."""

import asyncio
import re

import pytest

from penstock.deadline import set_deadline
from penstock.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DimensionMismatch,
    NotReady,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.statistics import Event
from retrieval_svc.filters import Exists
from retrieval_svc.values import EVERYTHING
from tests.retrieval_svc.cluster.fakes import (
    EVERY_ROW,
    HASTY,
    HERE,
    PATIENT,
    THERE,
    TWO_SHARDS,
    CountingStatistics,
    FakeNode,
    collection,
    coordinating,
    forever,
    pausing,
    places,
    query,
    raising,
    search,
    serving,
)


async def test_a_slow_replica_is_hidden_by_a_hedge_and_its_call_cancelled() -> None:
    statistics = CountingStatistics()
    async with serving(FakeNode(THERE, forever)) as slow, serving(FakeNode(THERE)) as good:
        async with coordinating(
            FakeNode(HERE), f",{slow.address}|{good.address}", limits=HASTY, statistics=statistics
        ) as coordinator:
            for _ in range(30):
                assert places((await search(coordinator))[0].dense) == EVERY_ROW
        while slow.node.cancelled < len(slow.node.calls):
            await asyncio.sleep(0.01)
    # On a busy machine the good one may be late as well, and the slow one be asked as its hedge, which nobody wins.
    assert 1 <= statistics.events[Event.HEDGE_WON] <= statistics.events[Event.HEDGE] == len(slow.node.calls)
    assert len(slow.node.calls) <= 15, "asked at first, and seldom after that"


async def test_hedges_are_a_bounded_share_of_the_calls() -> None:
    statistics = CountingStatistics()
    limits = ClusterLimits(hedge_delay_min_s=0.001, hedge_delay_max_s=0.001, hedge_burst=2, hedge_share_max=0.1)
    async with serving(FakeNode(THERE, pausing(0.01))) as one, serving(FakeNode(THERE, pausing(0.01))) as other:
        async with coordinating(
            FakeNode(HERE), f",{one.address}|{other.address}", limits=limits, statistics=statistics
        ) as coordinator:
            for _ in range(30):
                await search(coordinator)
    assert 1 <= statistics.events[Event.HEDGE] <= 5


async def test_a_dead_replica_is_replaced_at_once() -> None:
    statistics = CountingStatistics()
    async with serving(FakeNode(THERE)) as dying, serving(FakeNode(THERE)) as good:
        async with coordinating(
            FakeNode(HERE), f",{dying.address}|{good.address}", limits=PATIENT, statistics=statistics
        ) as coordinator:
            while not dying.node.calls:
                await search(coordinator)
            await dying.stop()
            while Event.RETRY not in statistics.events:
                assert places((await search(coordinator))[0].dense) == EVERY_ROW
    assert statistics.events[Event.EJECTION] >= 1


async def test_a_replica_that_recovers_is_used_again() -> None:
    limits = ClusterLimits(hedge_delay_min_s=5, hedge_delay_max_s=5, aside_min_s=0.05, aside_max_s=0.1)
    async with serving(FakeNode(THERE, raising(NotReady("loading")))) as loading, serving(FakeNode(THERE)) as good:
        async with coordinating(FakeNode(HERE), f",{loading.address}|{good.address}", limits=limits) as coordinator:
            while not loading.node.calls:
                await search(coordinator)
            loading.node.before = None
            refused = len(loading.node.calls)
            while len(loading.node.calls) < refused + 3:
                await search(coordinator)
                await asyncio.sleep(0.005)


async def test_one_that_was_put_aside_helps_out_where_the_only_other_one_hangs() -> None:
    limits = ClusterLimits(hedge_delay_min_s=0.01, hedge_delay_max_s=0.05, aside_min_s=600, aside_max_s=600, call_timeout_s=60)
    async with serving(FakeNode(THERE, raising(NotReady("loading")))) as loading, serving(FakeNode(THERE)) as good:
        async with coordinating(FakeNode(HERE), f",{loading.address}|{good.address}", limits=limits) as coordinator:
            while not loading.node.calls:
                await search(coordinator)
            loading.node.before, good.node.before = None, forever
            async with asyncio.timeout(30):
                assert places((await search(coordinator))[0].dense) == EVERY_ROW


async def test_two_replicas_share_the_work() -> None:
    async with serving(FakeNode(THERE, pausing(0.01))) as one, serving(FakeNode(THERE, pausing(0.01))) as other:
        async with coordinating(FakeNode(HERE), f",{one.address}|{other.address}", limits=PATIENT) as coordinator:

            async def search_again_and_again() -> None:
                for _ in range(60):
                    await search(coordinator)

            await asyncio.gather(search_again_and_again(), search_again_and_again())
    assert min(len(one.node.calls), len(other.node.calls)) >= 5


async def test_an_overloaded_replica_is_passed_over_once_and_two_are_believed() -> None:
    busy = [FakeNode(THERE, raising(Overloaded("too many", retry_after_s=2.5))) for _ in range(3)]
    async with serving(busy[0]) as one, serving(busy[1]) as two, serving(busy[2]) as three:
        addresses = f",{one.address}|{two.address}|{three.address}"
        async with coordinating(FakeNode(HERE), addresses, limits=PATIENT) as coordinator:
            with pytest.raises(Overloaded, match=r"shard 1 \(slot 1\): too many") as caught:
                await search(coordinator)
            assert caught.value.retry_after_s == 2.5
            assert sorted(len(node.calls) for node in busy) == [0, 1, 1]
            busy[0].before = busy[1].before = busy[2].before = None
            await search(coordinator)


async def test_one_overloaded_replica_does_not_fail_a_search() -> None:
    async with serving(FakeNode(THERE, raising(Overloaded("too many")))) as busy, serving(FakeNode(THERE)) as good:
        async with coordinating(FakeNode(HERE), f",{busy.address}|{good.address}", limits=PATIENT) as coordinator:
            found = [await search(coordinator) for _ in range(5)]
    assert all(places(each[0].dense) == EVERY_ROW for each in found)
    assert busy.node.calls


async def test_a_missing_shard_fails_the_search_and_is_named() -> None:
    async with serving(FakeNode(THERE)) as gone, coordinating(FakeNode(HERE), f",{gone.address}") as coordinator:
        await gone.stop()
        with pytest.raises(Unavailable, match=rf"'texts' .* shard 1 \(slot 1\): {re.escape(gone.address)}: ") as caught:
            await search(coordinator)
    assert caught.value.metadata == {"shards": "1", "slots": "1"}


async def test_nodes_that_do_not_know_one_another_are_not_the_callers_fault() -> None:
    async with serving(FakeNode(THERE, raising(Unauthenticated("no key")))) as strict:
        async with coordinating(FakeNode(HERE), f",{strict.address}") as coordinator:
            with pytest.raises(Unavailable, match="no key"):
                await search(coordinator)


async def test_a_missing_shard_is_said_where_that_is_allowed_and_counted() -> None:
    statistics = CountingStatistics()
    async with serving(FakeNode(THERE)) as gone:
        async with coordinating(FakeNode(HERE), f",{gone.address}", statistics=statistics) as coordinator:
            await gone.stop()
            found = await search(coordinator, query(), query(), partial=True)
    assert [each.missing_shards for each in found] == [(1,), (1,)]
    assert places(found[0].dense) == [(0, 2), (0, 1), (0, 3)]
    assert statistics.events[Event.PARTIAL] == 2


async def test_an_answer_without_any_shard_is_none() -> None:
    node = FakeNode(HERE, raising(NotReady("loading")))
    async with coordinating(node, "", slot_count=1) as coordinator:
        with pytest.raises(Unavailable, match="loading"):
            await coordinator.gather(collection(1), [query()], at_least={}, allow_partial=True)


async def test_a_shard_that_does_not_answer_in_time_is_missing_before_the_callers_own_time_is_up() -> None:
    async with serving(FakeNode(THERE, forever)) as stuck:
        async with coordinating(FakeNode(HERE), f",{stuck.address}") as coordinator:
            set_deadline(0.3)
            async with asyncio.timeout(0.3):
                found = await search(coordinator, partial=True)
            assert found[0].missing_shards == (1,)
            set_deadline(0.1)
            with pytest.raises(Unavailable, match=r"shard 1 \(slot 1\)"):
                await search(coordinator)


async def test_a_position_that_is_not_reached_in_time_is_said_to_be_that() -> None:
    late = DeadlineExceeded("shard 1 is at position 5, and 9 was asked for", metadata={"asked_position": "9"})
    told = (
        "the write that the consistency token stands for has not arrived yet everywhere in collection 'texts': "
        "shard 1 (slot 1): shard 1 is at position 5, and 9 was asked for; try again in a moment, or search without the token"
    )
    async with serving(FakeNode(THERE, raising(late))) as one, serving(FakeNode(THERE, raising(late))) as other:
        async with coordinating(FakeNode(HERE), f",{one.address}|{other.address}") as coordinator:
            with pytest.raises(DeadlineExceeded, match=f"^{re.escape(told)}$"):
                await coordinator.gather(TWO_SHARDS, [query()], at_least={1: 9}, allow_partial=False)
            before = "what was written before has not arrived yet"
            with pytest.raises(DeadlineExceeded, match=f"^{before}[^;]*; try again in a moment$"):
                await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={1: 9})
            one.node.before = other.node.before = None
            await search(coordinator)
    assert len(one.node.calls) + len(other.node.calls) == 3


async def test_a_request_that_is_at_fault_fails_alone() -> None:
    node = FakeNode(THERE)
    held = asyncio.Event()

    async def refuse_long_texts() -> None:
        await held.wait()
        if any(each.text == "wrong" for each in node.calls[-1]):
            raise DimensionMismatch("a vector of 3 does not fit")

    node.before = refuse_long_texts
    async with serving(node) as there, coordinating(FakeNode(HERE), f",{there.address}", limits=PATIENT) as coordinator:
        asked = [asyncio.create_task(search(coordinator, query(text=text))) for text in ("ab", "wrong", "ac")]
        while not node.calls:
            await asyncio.sleep(0.01)
        held.set()
        first, wrong, third = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(wrong, DimensionMismatch)
    assert isinstance(first, list)
    assert isinstance(third, list)
    assert [len(call) for call in node.calls] == [3, 1, 1, 1]


async def test_an_error_about_the_request_is_not_tried_again() -> None:
    gone = raising(CollectionNotFound("no collection 'texts'"))
    async with serving(FakeNode(THERE, gone)) as one, serving(FakeNode(THERE, gone)) as other:
        async with coordinating(FakeNode(HERE), f",{one.address}|{other.address}") as coordinator:
            with pytest.raises(CollectionNotFound):
                await search(coordinator, partial=True)
    assert len(one.node.calls) + len(other.node.calls) == 1
