import time

from penstock.probation import Probation


def test_each_failure_doubles_the_time_aside_but_calls_that_began_before_it_count_once() -> None:
    probation, began, times = Probation(), time.monotonic(), []
    for _ in range(4):
        assert probation.put_aside(time.monotonic(), at_least_s=10, at_most_s=60)
        assert not probation.put_aside(began, at_least_s=10, at_most_s=60)
        times.append(round(probation.aside_until - time.monotonic()))
    assert times == [10, 20, 40, 60]


def test_after_its_time_one_call_at_a_time_is_let_through_until_one_succeeds() -> None:
    probation = Probation()
    probation.put_aside(time.monotonic(), at_least_s=10, at_most_s=60)
    later = probation.aside_until
    assert probation.is_aside(later - 1, is_busy=False)
    assert probation.is_due(later)
    assert not probation.is_aside(later, is_busy=False)
    assert probation.is_aside(later, is_busy=True)
    probation.end()
    assert not probation.is_aside(later, is_busy=True)
    assert not probation.is_due(later)
