"""Answers of several slots, and what it means when some do not come."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Hashable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from penstock.deadline import remaining_s
from penstock.errors import DeadlineExceeded, Overloaded, PenstockError, Unavailable
from retrieval_svc.shards.follower import ASKED

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MISSING: Final = (Unavailable, DeadlineExceeded, Overloaded)
"""What leaves a shard out. Every other error is about the request, and fails it."""
AWAITED_WRITE: Final = "the write that the consistency token stands for"
EARLIER_WRITES: Final = "what was written before"
_SHARE_OF_DEADLINE: Final = 0.9
"""Of what is left to the caller; the rest is for making an answer of what came."""


def time_left_s(limit_s: float) -> float:
    """Seconds that shards may take: `limit_s`, and never so long that the caller's deadline passes meanwhile."""
    return min(limit_s, _SHARE_OF_DEADLINE * remaining_s(math.inf))


async def collect(pending: Mapping[K, Awaitable[T]], timeout_s: float) -> tuple[dict[K, T], dict[K, PenstockError]]:
    """What came in time, and why the rest did not. Coroutines run one after the other, so futures should be under way.

    An error that is about the request is raised at once. Nothing of `pending` runs on afterwards.
    """
    answers: dict[K, T] = {}
    failures: dict[K, PenstockError] = {}
    try:
        async with asyncio.timeout(timeout_s) as scope:
            for key, answer in sorted(pending.items(), key=_is_under_way):
                try:
                    answers[key] = await answer
                except MISSING as error:
                    failures[key] = error
    except TimeoutError:
        if not scope.expired():
            raise
        for key in pending.keys() - answers.keys() - failures.keys():
            _take_if_done(key, pending[key], answers, failures, timeout_s)
    finally:
        _withdraw(pending.values())
    return answers, failures


def _is_under_way(pending: tuple[object, Awaitable[object]]) -> bool:
    return isinstance(pending[1], asyncio.Future)


def _take_if_done(
    key: K, answer: Awaitable[T], answers: dict[K, T], failures: dict[K, PenstockError], timeout_s: float
) -> None:
    """Behind one that was waited for in vain others may have come."""
    failures[key] = DeadlineExceeded(f"no answer within {timeout_s:.3g} s")
    if isinstance(answer, asyncio.Future) and answer.done() and not answer.cancelled():
        try:
            answers[key] = answer.result()
            del failures[key]
        except MISSING as error:
            failures[key] = error


def failure_of(
    collection_id: str, shards: Mapping[int, Sequence[int]], errors: Mapping[int, PenstockError], *, awaited: str
) -> PenstockError:
    """One error for shards (by slot) that did not answer, which names them all.

    Overloaded where that is all there is to say; DeadlineExceeded where something was `awaited` (AWAITED_WRITE or
    EARLIER_WRITES; "" where nothing was) and has not come; else Unavailable.
    """
    missing = sorted(shard for slot in errors for shard in shards[slot])
    metadata = {"shards": ",".join(map(str, missing)), "slots": ",".join(map(str, sorted(errors)))}
    kinds = {type(error) for error in errors.values()}
    if kinds == {DeadlineExceeded} and awaited and any(ASKED in error.metadata for error in errors.values()):
        return DeadlineExceeded(_not_come(collection_id, _told(shards, errors), awaited), metadata=metadata)
    message = f"collection {collection_id!r} cannot be read completely: {_told(shards, errors)}"
    if kinds == {Overloaded}:
        return Overloaded(message, metadata=metadata, retry_after_s=_longest(errors.values()))
    if kinds == {DeadlineExceeded} and awaited:
        return DeadlineExceeded(message, metadata=metadata)
    return Unavailable(message, metadata=metadata, retry_after_s=_longest(errors.values()))


def _not_come(collection_id: str, told: str, awaited: str) -> str:
    """The shards are there, and it is not for them that the caller waits."""
    instead = ", or search without the token" if awaited == AWAITED_WRITE else ""
    return f"{awaited} has not arrived yet everywhere in collection {collection_id!r}: {told}; try again in a moment{instead}"


def _told(shards: Mapping[int, Sequence[int]], errors: Mapping[int, PenstockError]) -> str:
    return "; ".join(
        f"{_named('shard', shards[slot])} (slot {slot}): {error.message}" for slot, error in sorted(errors.items())
    )


def _withdraw(pending: Iterable[Awaitable[object]]) -> None:
    for each in pending:
        if isinstance(each, asyncio.Future):
            if not each.cancel() and not each.cancelled():
                each.exception()  # Looked at, for nobody is left to hear of it.
        elif inspect.iscoroutine(each):
            each.close()  # No coroutine is left behind unawaited.


def _longest(errors: Iterable[PenstockError]) -> float:
    return max((error.retry_after_s or 1.0) for error in errors)


def _named(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
