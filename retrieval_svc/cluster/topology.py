"""Which node holds which shard.

The cluster has S slots. Shard s of the collection with number u lies on slot (u + s) mod S, so that collections of few shards
spread over the slots too. Every node of a slot (its replicas) holds all of the slot's shards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.addresses import Address, parse_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The slots, and where each one's replicas are; of the own slot these are the other replicas, if there are any."""

    own_slot: int = 0
    slot_count: int = 1
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)

    def slot_of(self, uid: int, shard: int) -> int:
        """The slot that holds a shard of a collection."""
        return (uid + shard) % self.slot_count

    def shards_by_slot(self, uid: int, shard_count: int) -> dict[int, tuple[int, ...]]:
        """The shards of a collection on each slot that has any, ascending."""
        first = uid % self.slot_count
        return {
            (first + at) % self.slot_count: tuple(range(at, shard_count, self.slot_count))
            for at in range(min(shard_count, self.slot_count))
        }

    def own_shards(self, uid: int, shard_count: int) -> tuple[int, ...]:
        """The shards of a collection that this node holds."""
        return self.shards_by_slot(uid, shard_count).get(self.own_slot, ())


def parse_topology(text: str, *, own_slot: int = 0, slot_count: int = 1) -> Topology:
    """Reads "host:port|host:port,host:port": "," between slots, "|" between the replicas of one.

    Empty: this node is alone. The own slot's place may be empty. Raises ValueError that says which part is wrong.
    """
    if not 0 <= own_slot < slot_count:
        raise ValueError(f"this node's slot is {own_slot}, but the cluster's {slot_count} slots are 0 to {slot_count - 1}")
    places = [place.strip() for place in text.split(",")]
    if not text.strip():
        places = [""] * slot_count if slot_count == 1 else []
    if len(places) != slot_count:
        raise ValueError(
            f"the cluster has {slot_count} slots, but the replicas of {len(places)} are given; "
            f'separate slots by "," and the replicas of a slot by "|", such as "a:50051|b:50051,c:50051"'
        )
    addresses = {slot: _parse_slot(place, slot) for slot, place in enumerate(places)}
    for slot, replicas in addresses.items():
        if not replicas and slot != own_slot:
            raise ValueError(f"slot {slot} has no replicas; only the place of this node's own slot ({own_slot}) may be empty")
    _check_distinct(addresses)
    return Topology(own_slot=own_slot, slot_count=slot_count, addresses=addresses)


def _parse_slot(place: str, slot: int) -> tuple[Address, ...]:
    if not place:
        return ()
    try:
        return tuple(parse_address(each) for each in place.split("|"))
    except ValueError as error:
        raise ValueError(f"slot {slot}: {error}") from None


def _check_distinct(addresses: Mapping[int, tuple[Address, ...]]) -> None:
    seen: dict[Address, int] = {}
    for slot, replicas in addresses.items():
        for address in replicas:
            if address in seen:
                raise ValueError(f"{address} is given for slot {seen[address]} and again for slot {slot}; a node has one slot")
            seen[address] = slot
