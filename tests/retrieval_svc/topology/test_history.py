"""The checker itself: what it accepts, and what it tells from that."""

import pytest

from tests.retrieval_svc.topology.history import History, Observation, Write, last_versions


def write(version: int | None, position: int | None) -> Write:
    return Write(version=version, position=position)


def test_the_write_with_the_highest_position_is_the_last_whatever_was_heard_first() -> None:
    assert last_versions([write(2, 9), write(1, 4), write(None, 7)]) == {2}
    assert last_versions([write(1, 4), write(None, 7)]) == {None}


def test_a_write_of_which_nobody_heard_again_may_be_there_or_not() -> None:
    assert last_versions([write(1, 4), write(2, None)]) == {1, 2}
    assert last_versions([write(2, None)]) == {None, 2}


@pytest.mark.parametrize(("seen", "is_right"), [(1, False), (2, True), (3, True), (None, False), (9, False)])
def test_what_is_older_than_the_token_of_the_search_is_told(seen: int | None, is_right: bool) -> None:
    history = History(name="collections/x", writes={"a": [write(None, 2), write(1, 4), write(2, 6), write(3, 8)]})
    history.seen.append(Observation(chunk_id="a", at_least=6, seen=seen))
    if is_right:
        history.check_observations()
    else:
        with pytest.raises(AssertionError):
            history.check_observations()
