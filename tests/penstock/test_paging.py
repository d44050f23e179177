import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.paging import key_after, page_token


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_a_token_gives_back_its_key(key: str) -> None:
    assert key_after("a/list", page_token("a/list", key)) == key
    assert "=" not in page_token("a/list", key)


def test_where_no_page_follows_there_is_no_token() -> None:
    assert page_token("a/list", "") == ""


def test_a_key_that_no_id_can_be_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        key_after("a/list", page_token("a/list", "key\0more"))


def test_no_token_is_the_first_page() -> None:
    assert key_after("a/list", "") == ""


@pytest.mark.parametrize(
    "token",
    ["garbage", "====", "ä", "MQ==", base64.b64encode(b"2key").decode(), base64.b64encode(b"1\xff\xfe").decode(), "MWt leQ"],
)
def test_garbage_is_no_token(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        key_after("a/list", token)
    assert refused.value.metadata == {"field": "page_token"}


def test_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="this list"):
        key_after("another/list", page_token("a/list", "key"))
