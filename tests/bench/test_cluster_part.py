import pytest

from bench.cluster_part import Write, position_of, waits_ms
from retrieval_svc.consistency import consistency_token


def write(at: float, position: int) -> Write:
    return Write(acknowledged_at=at, position=position, took_ms=1.0)


def test_a_write_is_seen_at_the_first_look_that_finds_its_position_reached() -> None:
    writes = [write(1.0, 5), write(1.0, 6), write(1.5, 7)]
    looks = [(0.9, 4), (1.1, 5), (1.2, 6), (1.4, 7), (1.6, 7)]
    assert waits_ms(writes, looks) == pytest.approx([100, 200, 0]), "the last was seen before it was acknowledged"


def test_writes_need_not_be_acknowledged_in_the_order_of_their_positions() -> None:
    assert waits_ms([write(2.0, 2), write(1.0, 1)], [(1.5, 1), (2.5, 2)]) == pytest.approx([500, 500])


def test_a_write_that_is_never_seen_is_a_failure_and_no_number() -> None:
    with pytest.raises(RuntimeError, match="position 3 was acknowledged and never seen"):
        waits_ms([write(1.0, 3)], [(1.1, 2)])


def test_a_position_is_read_from_the_services_own_token() -> None:
    assert position_of(consistency_token(9, {0: 1234})) == 1234
