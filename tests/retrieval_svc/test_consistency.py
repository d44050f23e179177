import base64
import re

import pytest

from penstock.deadline import set_deadline
from penstock.errors import DeadlineExceeded, InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.consistency import consistency_token, merged, positions_in
from retrieval_svc.values import Chunk
from tests.retrieval_svc.fakes import Core
from tests.retrieval_svc.test_bad_input import VECTORS, Context, floats


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


async def test_a_search_whose_write_has_not_come_says_where_the_shard_is_and_what_was_asked_for(core: Core) -> None:
    await core.ingest.upsert_chunks(VECTORS, [Chunk(id="c", text="t", vector=floats(1, 0, 0))])
    collection = await core.catalog.find(VECTORS)
    request = pb.SearchRequest(collection=VECTORS, vector=floats(1, 0, 0))
    request.consistency_token = consistency_token(collection.uid, {0: 4})
    set_deadline(0.5)
    with pytest.raises(DeadlineExceeded) as late:
        await core.servicer.Search(request, Context())
    assert re.sub(r"[\d.]+ s", "SECONDS", late.value.message) == (
        "the write that the consistency token stands for has not arrived yet everywhere in collection 'vectors': "
        "shard 0 (slot 0): shard 0 is at position 1, and 4 was asked for and did not come within SECONDS; "
        "try again in a moment, or search without the token"
    )
    request.consistency_token = consistency_token(collection.uid, {0: 1})
    assert len((await core.servicer.Search(request, Context())).message().hits) == 1
