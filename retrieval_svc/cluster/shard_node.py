"""What a node of the cluster does for the one that coordinates: the shards that it holds, searched and read."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from retrieval_svc.filters import Filter
from retrieval_svc.values import FetchedRows, MatchedRows, Sequences, ShardAnswer, ShardQuery, Visibility


class ShardNode(Protocol):
    """A node that holds shards: this process, or another one.

    Every call ends by the deadline of the call that is being served (penstock.deadline). All raise Unavailable for a shard that
    the node does not have or is still loading, Overloaded when too many wait, and DeadlineExceeded when the shard has not
    reached a demanded position in time. A position of 0 demands nothing.
    """

    async def search(self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], /) -> list[ShardAnswer]:
        """Searches each of the shards (shard -> the position that it must have reached) with all of the queries.

        One answer a shard, each with one entry a query in their order; a side's rows best first, ties by sequence number.
        """
        ...

    async def fetch(self, uid: int, shard: int, at_least: int, sequences: Sequences, /, *, with_vectors: bool) -> FetchedRows:
        """Rows by their numbers, in any order; those that are gone are left out."""
        ...

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility, /) -> MatchedRows:
        """All rows that match."""
        ...
