import time

import pytest

from penstock.errors import DeadlineExceeded, InvalidArgument, NotReady, PenstockError
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.race import Pace
from retrieval_svc.cluster.replicas import Replica, Replicas
from retrieval_svc.cluster.statistics import Event
from tests.retrieval_svc.cluster.fakes import CountingStatistics, FakeNode

LIMITS = ClusterLimits(call_timeout_s=5.0, aside_min_s=10.0, aside_max_s=60.0)


class IdleNode(FakeNode):
    async def close(self, grace_s: float | None = None) -> None:
        raise AssertionError("replicas do not close nodes themselves")


def replicas(*addresses: str, statistics: CountingStatistics | None = None) -> Replicas:
    made = Replicas(lambda _: IdleNode({}), limits=LIMITS, statistics=statistics or CountingStatistics())
    made.update(addresses)
    return made


def pick(among: Replicas, *tried: Replica) -> Replica:
    found = among.pick(tried)
    assert found is not None
    return found


def test_the_one_with_fewest_calls_in_flight_is_next_and_then_the_fastest() -> None:
    slots = replicas("a:1", "b:1")
    first = pick(slots)
    first.called()
    second = pick(slots)
    assert second is not first
    first.ended(None)
    second.called()
    second.ended(None)
    second.observe(0.2)
    assert [pick(slots) for _ in range(3)] == [first] * 3
    assert slots.pick([first, second]) is None


@pytest.mark.parametrize(
    ("error", "age_s", "waits", "is_put_aside"),
    [
        (NotReady("loading"), 0.0, True, True),
        (DeadlineExceeded("late"), 5.0, False, True),
        (DeadlineExceeded("late"), 5.0, True, False),
        (DeadlineExceeded("the caller was in a hurry"), 0.1, False, False),
        (InvalidArgument("no"), 5.0, False, False),
    ],
)
def test_what_a_replica_is_put_aside_for(error: PenstockError, age_s: float, waits: bool, is_put_aside: bool) -> None:
    statistics = CountingStatistics()
    slots = replicas("a:1", "b:1", statistics=statistics)
    replica = pick(slots)
    slots.failed(replica, error, time.monotonic() - age_s, waits=waits)
    assert replica.is_aside(time.monotonic()) == is_put_aside
    assert statistics.events.get(Event.EJECTION, 0) == is_put_aside


def test_losing_three_hedges_in_a_row_is_a_failure_and_an_answer_clears_it() -> None:
    slots = replicas("a:1", "b:1")
    replica = pick(slots)
    for _ in range(2):
        slots.lost(replica, time.monotonic())
    replica.succeeded(0.01)
    for _ in range(2):
        slots.lost(replica, time.monotonic())
    assert not replica.is_aside(time.monotonic())
    slots.lost(replica, time.monotonic())
    assert replica.is_aside(time.monotonic())


def test_one_put_aside_is_asked_only_where_there_is_no_other_and_then_on_probation_one_call_at_a_time() -> None:
    slots = replicas("a:1", "b:1")
    bad = pick(slots)
    bad.probation.put_aside(time.monotonic(), at_least_s=10, at_most_s=60)
    good = pick(slots)
    assert good is not bad
    assert pick(slots, good) is bad
    bad.probation.aside_until = time.monotonic()
    assert pick(slots) is bad, "its time is over: one call finds out"
    bad.called()
    assert pick(slots) is good
    bad.ended(None)
    bad.succeeded(0.01)
    assert not bad.is_on_probation(time.monotonic())


def test_hedges_follow_the_95th_percentile_within_bounds() -> None:
    pace = Pace(ClusterLimits(hedge_delay_min_s=0.01, hedge_delay_max_s=0.1))
    assert pace.delay_s == 0.1
    for latency in [0.02] * 56 + [0.05] * 8:
        pace.observe(latency)
    assert pace.delay_s == 0.05
    for _ in range(128):
        pace.observe(0.001)
    assert pace.delay_s == 0.01
    for _ in range(128):
        pace.observe(3.0)
    assert pace.delay_s == 0.1
