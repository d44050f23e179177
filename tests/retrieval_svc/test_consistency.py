import base64

import pytest

from penstock.errors import InvalidArgument
from retrieval_svc.consistency import consistency_token, merged, positions_in


def test_a_token_says_where_its_write_is_visible() -> None:
    assert positions_in(7, consistency_token(7, {0: 12, 3: 4})) == {0: 12, 3: 4}


def test_a_write_that_changed_nothing_has_no_token() -> None:
    assert consistency_token(7, {}) == ""
    assert positions_in(7, "") == {}


def test_tokens_joined_by_commas_ask_for_all_of_their_writes() -> None:
    joined = ",".join([consistency_token(7, {0: 12, 1: 1}), consistency_token(7, {0: 3, 2: 9})])
    assert positions_in(7, joined) == {0: 12, 1: 1, 2: 9}


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        ",",
        consistency_token(8, {0: 1}),
        base64.urlsafe_b64encode(b"[7,[[0,-1]]]").decode(),
        base64.urlsafe_b64encode(b"[7,[[5000,1]]]").decode(),
        base64.urlsafe_b64encode(b"[7,[[0,99999999999999999999]]]").decode(),
        base64.urlsafe_b64encode(b'{"a":1}').decode(),
    ],
)
def test_what_no_write_gave_out_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="leave it empty"):
        positions_in(7, token)


def test_positions_of_two_writes_are_the_higher_ones() -> None:
    assert merged({0: 1, 1: 5}, {0: 2}) == {0: 2, 1: 5}
