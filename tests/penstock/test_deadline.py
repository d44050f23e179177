"""What is left of a call's deadline, and who gives up first."""

import pytest

from penstock.deadline import patience_s, remaining_s, set_deadline, within


async def test_a_block_has_its_own_time_and_never_more_than_is_left() -> None:
    assert remaining_s(100) == 100
    with within(10):
        assert remaining_s(100) == pytest.approx(10, abs=1)
        with within(1000):
            assert remaining_s(100) == pytest.approx(10, abs=1)
    assert remaining_s(100) == 100


async def test_who_waits_gives_up_before_who_asked() -> None:
    assert patience_s(100) == 100, "nobody asked"
    set_deadline(10)
    assert patience_s(100) == pytest.approx(8, abs=1)
    assert patience_s(2) == 2
