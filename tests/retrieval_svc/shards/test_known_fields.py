"""A filter on a field that a shard once had finds nothing, whatever became of the rows; one that it never had is told."""

import hashlib
from pathlib import Path

import numpy as np
import orjson
import pytest

from retrieval_svc.filters import AllOf, Filter, NoneOf, OneOf, Range, parsed_time
from retrieval_svc.shards.checkpoint import CHECKPOINTS, newest
from retrieval_svc.shards.columns import Kind
from retrieval_svc.shards.known_fields import FIELDS_MAX, KnownFields
from retrieval_svc.shards.segment_writer import write_segment
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import EVERYTHING, UnmetCondition
from tests.retrieval_svc.shards.rows import CODEC, added, clustered, open_shard, query, removed, spec_of
from tests.retrieval_svc.shards.test_shard_index import checkpoint, compact, seal

BOOKS = ['{"year": 1999, "shelf": {"name": "A"}, "lent": "2026-01-01"}'] * 3
OTHERS = ['{"author": "ann"}'] * 4
ONCE_HAD: list[Filter] = [
    OneOf(field="year", values=(1999.0,)),
    Range(field="year", gt=1.0),
    OneOf(field="shelf.name", values=("A", "B")),
    Range(field="shelf.name", lt="B"),
    Range(field="lent", gte=parsed_time("2026-01-01")),
    NoneOf(filters=(OneOf(field="year", values=(1.0,)),)),
]
NEVER_HAD = OneOf(field="yaer", values=(1999.0,))
OF_ANOTHER_TYPE = OneOf(field="year", values=("1999",))


def check(shard: ShardIndex) -> None:
    """The books are gone, and are remembered."""
    vector = clustered(1)[0]
    never = UnmetCondition(field="yaer", wanted="number")
    other = UnmetCondition(field="year", wanted="string", present=frozenset({"number"}))
    for condition in ONCE_HAD:
        found = shard.match(condition, EVERYTHING)
        assert found.unmet == shard.search([query(vector, filter=condition)])[0][1] == (), condition
        assert isinstance(condition, NoneOf) or len(found.sequences) == 0
    for condition, unmet in ((NEVER_HAD, never), (OF_ANOTHER_TYPE, other), (AllOf(filters=(*ONCE_HAD, NEVER_HAD)), never)):
        assert shard.match(condition, EVERYTHING).unmet == (unmet,)
        assert shard.search([query(vector, filter=condition)])[0][1] == (unmet,)
        allowed = shard.allowed(query(vector, filter=condition))
        assert allowed is not None
        assert allowed.unmet == (unmet,)


@pytest.mark.parametrize("others", [OTHERS, []], ids=["others", "nothing"])
@pytest.mark.parametrize("sealed", [True, False], ids=["of a segment", "of a head"])
def test_fields_of_rows_that_are_gone_outlive_sealing_merging_and_restarts(
    tmp_path: Path, sealed: bool, others: list[str]
) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(3), metadata=BOOKS))
    if sealed:
        seal(shard, tmp_path)
    shard.apply(added(3, clustered(len(others)), metadata=others))
    shard.apply(removed(shard.position, [1, 2, 3]))
    check(shard)
    seal(shard, tmp_path)
    check(shard)
    check(open_shard(tmp_path))
    compact(shard, tmp_path)
    check(shard)
    again = open_shard(tmp_path)
    check(again)
    assert again.status().segment_count == (1 if others else 0)
    seal(again, tmp_path)
    check(open_shard(tmp_path))


def test_fields_of_rows_that_went_while_their_head_was_written_are_known(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(3), metadata=BOOKS))
    frozen = shard.freeze_head()
    assert frozen is not None
    shard.apply(added(3, clustered(4), metadata=OTHERS))
    shard.apply(removed(7, [1, 2, 3]))
    checkpoint(shard, tmp_path, [write_segment(frozen, tmp_path)])
    check(shard)
    compact(shard, tmp_path)
    check(shard)
    check(open_shard(tmp_path))


def test_who_adopts_a_checkpoint_knows_the_fields_of_rows_that_it_never_saw(tmp_path: Path) -> None:
    leader = open_shard(tmp_path)
    leader.apply(added(0, clustered(3), metadata=BOOKS))
    leader.apply(added(3, clustered(4), metadata=OTHERS))
    leader.apply(removed(7, [1, 2, 3]))
    seal(leader, tmp_path)
    follower = ShardIndex(tmp_path, spec_of(), 0, CODEC)
    manifest = newest(tmp_path)
    assert manifest is not None
    follower.adopt(manifest)
    check(follower)


def test_an_index_that_is_built_anew_takes_over_what_the_one_before_knew(tmp_path: Path) -> None:
    old = open_shard(tmp_path / "old")
    for after in (0, 3):
        old.apply(added(after, clustered(3), metadata=BOOKS))
        old.apply(removed(after + 3, [after + 1, after + 2, after + 3]))
        seal(old, tmp_path / "old") if after else None
    fresh = open_shard(tmp_path / "fresh")
    fresh.remember(old.fields())
    fresh.apply(added(0, clustered(4), metadata=OTHERS))
    check(fresh)


def test_a_shard_that_never_had_a_row_knows_no_field(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    for _ in range(2):
        assert shard.match(NEVER_HAD, EVERYTHING).unmet == (UnmetCondition(field="yaer", wanted="number"),)
        assert shard.match(None, EVERYTHING).unmet == ()
        seal(shard, tmp_path)


def test_a_checkpoint_from_before_fields_were_kept_opens(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(added(0, clustered(3), metadata=BOOKS))
    seal(shard, tmp_path)
    manifest = newest(tmp_path)
    assert manifest is not None
    path = tmp_path / CHECKPOINTS / manifest.name
    document = orjson.loads(path.read_bytes().partition(b"\n")[2])
    del document["fields"]
    body = orjson.dumps(document)
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    again = open_shard(tmp_path)
    assert (again.row_count, again.position) == (3, 3)
    again.apply(removed(3, [1, 2, 3]))
    compact(again, tmp_path)
    check(again)


def test_there_is_a_bound_to_what_is_remembered_and_access_lists_are_no_fields() -> None:
    known = KnownFields((Kind.NUMBER, f"key{number}") for number in range(FIELDS_MAX + 5))
    assert len(known.keys) == FIELDS_MAX
    assert len(KnownFields([(Kind.ACCESS, "")]).keys) == 0


def test_fields_come_in_one_order(tmp_path: Path) -> None:
    keys = [(Kind.STRING, "b"), (Kind.NUMBER, "a"), (Kind.BOOL, "b")]
    assert KnownFields(keys).keys == KnownFields(reversed(keys)).keys
    assert np.all(KnownFields(keys).within(np.zeros(2, np.int32), Range(field="b", gt="x")))
