import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from penstock.errors import BackendUnavailable, DeadlineExceeded
from retrieval_svc.shards.follower import Follower, LogTrimmedError, ShardKey
from retrieval_svc.values import Changes, Rows

KEY = ShardKey(uid=1, shard=0)
NOTHING = np.empty(0, dtype=np.int64)


def changes(after: int, through: int) -> Changes:
    rows = Rows(chunks=(), vectors=np.empty((0, 2), dtype=np.float32))
    return Changes(after=after, through=through, stored=rows, removed=NOTHING, removed_at=NOTHING)


class Log:
    """A record of transactions that end at given numbers; `failures` are raised first."""

    def __init__(self, *ends: int) -> None:
        self.ends = list(ends)
        self.reads: list[int] = []
        self.failures: list[Exception] = []

    async def changes(self, uid: int, shard: int, after: int, limit: int) -> Changes:
        self.reads.append(after)
        if self.failures:
            raise self.failures.pop(0)
        return changes(after, next((end for end in self.ends if end > after), after))


class Applied(list[tuple[int, int]]):
    async def __call__(self, each: Changes) -> None:
        await asyncio.sleep(0)
        self.append((each.after, each.through))


async def nothing_to_rebuild() -> int:
    raise AssertionError("nothing was trimmed")


def follower(log: Log, applied: Applied, rebuild: Callable[[], Awaitable[int]] = nothing_to_rebuild) -> Follower:
    return Follower(key=KEY, reader=log, position=0, apply=applied, rebuild=rebuild)


async def test_a_hint_makes_it_read_the_log_up_to_there() -> None:
    applied = Applied()
    following = follower(Log(3, 7), applied)
    async with running(following):
        following.hint(7)
        await following.reached(7, 5)
    assert applied == [(0, 3), (3, 7)]


async def test_what_was_offered_is_not_read_back() -> None:
    log, applied = Log(3, 7), Applied()
    following = follower(log, applied)
    async with running(following):
        following.offer(changes(0, 3))
        following.offer(changes(3, 7))
        await following.reached(7, 5)
    assert applied == [(0, 3), (3, 7)]
    assert log.reads == []


async def test_offers_in_the_wrong_order_are_applied_in_the_right_one() -> None:
    log, applied = Log(3, 7), Applied()
    following = follower(log, applied)
    async with running(following):
        following.offer(changes(3, 7))
        await asyncio.sleep(0)
        following.offer(changes(0, 3))
        await following.reached(7, 5)
    assert applied == [(0, 3), (3, 7)]
    assert log.reads == []


async def test_an_offer_whose_predecessor_never_comes_is_reached_by_the_log() -> None:
    log, applied = Log(3, 7), Applied()
    following = follower(log, applied)
    async with running(following):
        following.offer(changes(3, 7))
        await following.reached(7, 5)
    assert applied == [(0, 3), (3, 7)]
    assert log.reads == [0], "the first was read, the second had been offered"


async def test_a_write_that_was_rolled_back_is_not_waited_for_for_ever() -> None:
    log, applied = Log(3), Applied()
    following = follower(log, applied)
    async with running(following):
        following.hint(9)
        await following.reached(3, 5)
        await asyncio.sleep(0.01)
        reads = len(log.reads)
        await asyncio.sleep(0.05)
    assert following.lag == 0
    assert len(log.reads) == reads, "it does not spin"


async def test_it_goes_on_when_the_record_can_be_read_again() -> None:
    log, applied = Log(3), Applied()
    log.failures.append(BackendUnavailable("the database is away"))
    following = follower(log, applied)
    async with running(following):
        following.hint(3)
        await following.reached(3, 5)
    assert applied == [(0, 3)]


async def test_it_starts_anew_where_the_log_was_trimmed() -> None:
    log, applied = Log(3, 20, 21), Applied()
    log.failures.append(LogTrimmedError())

    async def rebuild() -> int:
        return 20

    following = follower(log, applied, rebuild)
    async with running(following):
        following.hint(21)
        await following.reached(21, 5)
    assert applied == [(20, 21)]


async def test_waiting_for_a_position_ends_with_where_the_shard_is() -> None:
    following = follower(Log(), Applied())
    async with running(following):
        with pytest.raises(DeadlineExceeded, match="is at position 0, and 5 was asked for and did not come within") as late:
            await following.reached(5, 0.01)
    assert late.value.metadata == {"shard": "0", "position": "0", "asked_position": "5"}


class running:  # noqa: N801  # Reads as a phrase.
    def __init__(self, following: Follower) -> None:
        self._following = following

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._following.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
