import pytest

from retrieval_svc.cluster.topology import Address, Topology, parse_topology


def test_a_node_alone_has_every_shard() -> None:
    alone = parse_topology("")
    assert alone.own_shards(uid=7, shard_count=3) == (0, 1, 2)
    assert alone == Topology(addresses={0: ()})


def test_slots_and_their_replicas_are_read() -> None:
    topology = parse_topology("a:1|b:2, [::1]:3", own_slot=1, slot_count=2)
    assert topology.addresses == {0: (Address(host="a", port=1), Address(host="b", port=2)), 1: (Address(host="::1", port=3),)}
    assert str(topology.addresses[1][0]) == "[::1]:3"


def test_only_the_own_slot_may_be_without_replicas() -> None:
    assert parse_topology(",b:1", slot_count=2).addresses[0] == ()
    with pytest.raises(ValueError, match=r"slot 0 has no replicas; only .* own slot \(1\)"):
        parse_topology(",b:1", own_slot=1, slot_count=2)


@pytest.mark.parametrize(
    ("text", "own_slot", "slot_count", "fault"),
    [
        ("a:1,b:2", 0, 3, "3 slots, but the replicas of 2 are given"),
        ("", 0, 2, "2 slots, but the replicas of 0 are given"),
        ("a:1", 1, 1, "slot is 1, but the cluster's 1 slots are 0 to 0"),
        ("a:1|b,c:1", 0, 2, "slot 0: 'b' is not"),
        ("a:1,c:99999", 0, 2, "slot 1: 'c:99999' is not .* from 1 to 65535"),
        ("a:1,:5", 0, 2, "slot 1: ':5' is not"),
        ("a:1||b:1,c:1", 0, 2, "slot 0: '' is not"),
        ("a:1,b:1|a:1", 0, 2, "a:1 is given for slot 0 and again for slot 1"),
    ],
)
def test_a_fault_is_named(text: str, own_slot: int, slot_count: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_topology(text, own_slot=own_slot, slot_count=slot_count)


@pytest.mark.parametrize("uid", range(5))
@pytest.mark.parametrize("shard_count", [1, 2, 3, 4, 9])
def test_every_shard_lies_on_the_slot_that_the_rule_says(uid: int, shard_count: int) -> None:
    topology = Topology(slot_count=3, addresses={})
    plan = topology.shards_by_slot(uid, shard_count)
    assert sorted(shard for shards in plan.values() for shard in shards) == list(range(shard_count))
    assert all((uid + shard) % 3 == slot == topology.slot_of(uid, shard) for slot, shards in plan.items() for shard in shards)
