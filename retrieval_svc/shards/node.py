"""The shards that this process holds.

open -> opener (files, snapshot, words) -> Replica -> its follower catches up with the record -> searched
commit here -> offer, commit elsewhere -> hint: the replica's follower applies what is new
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from opentelemetry.trace import Tracer

from penstock import deadline, semconv
from penstock.errors import CollectionNotFound, PenstockError, Unavailable
from penstock.tracing import inner_span
from retrieval_svc.filters import Filter
from retrieval_svc.shards.follower import Follower
from retrieval_svc.shards.replica import Replica
from retrieval_svc.values import (
    Changes,
    Collection,
    FetchedRows,
    MatchedRows,
    Sequences,
    ShardAnswer,
    ShardQuery,
    ShardStatus,
    Visibility,
)

_CATCH_UP_S: Final = 3600.0
"""Time for a shard to catch up with the record when it is opened; one that is built anew takes long."""
_RETRY_S: Final = (0.5, 10.0)
"""First and longest pause after collections could not be opened or closed as the record has them."""

_log = logging.getLogger(__name__)
_RETIRED_S: Final = 60.0
"""How long a collection that was replaced is still searched by those who began with it, here or on another node."""


class Hint(Protocol):
    """What has changed in the record."""

    @property
    def positions(self) -> Mapping[tuple[int, int], int]:
        """Collection and shard to the number up to which its log goes."""
        ...

    @property
    def catalog(self) -> bool:
        """Whether collections were made or deleted."""
        ...


class Record(Protocol):
    """The record, as the node reads it."""

    async def positions(self, uid: int) -> Mapping[int, int]:
        """For each shard of a collection the last sequence number."""
        ...

    def watch(self) -> AsyncIterator[Hint]:
        """Hints of changes, for ever. It survives the database's absence."""
        ...


class Opener(Protocol):
    """Opens a shard's files."""

    async def open(self, collection: Collection, shard: int) -> Replica:
        """The shard as its files have it, behind the record or not."""
        ...


@dataclass(slots=True)
class _Open:
    """A collection whose shards are open here."""

    collection: Collection
    replicas: dict[int, Replica]
    following: list[asyncio.Task[None]] = field(default_factory=list)
    caught_up: bool = False
    """Whether it may be searched: before that it lacks what it would have to find."""

    async def close(self) -> None:
        """Stops following, and closes the replicas."""
        await _ended(self.following)
        await asyncio.gather(*(replica.close() for replica in self.replicas.values()))


class LocalShards:
    """Implements the cluster's port of a node. `holds` says which shards belong here, `stop` asks the process to leave."""

    def __init__(
        self,
        folder: Path,
        record: Record,
        opener: Opener,
        *,
        holds: Callable[[int, int], bool],
        consistency_wait_s: float,
        tracer: Tracer,
        stop: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._record = record
        self._opener = opener
        self._holds = holds
        self._wait_s = consistency_wait_s
        self._tracer = tracer
        self._stop = stop
        self._collections: dict[int, _Open] = {}
        self._retired: dict[int, _Open] = {}
        self._retiring: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False
        self.on_unknown: Callable[[], Awaitable[None]] | None = None
        """Called when the collections have changed, or when one is asked for that is not open here."""

    def start(self) -> None:
        """Begins to listen to the record."""
        self._watching = asyncio.create_task(self._watch())

    async def open(self, collection: Collection) -> None:
        """Opens the shards of a collection that belong here; done when they have caught up with the record."""
        uid = collection.uid
        shards = [shard for shard in range(collection.spec.shard_count) if self._holds(uid, shard)]
        replicas = await asyncio.gather(*(self._opener.open(collection, shard) for shard in shards))
        opened = self._collections[uid] = _Open(collection, dict(zip(shards, replicas, strict=True)))
        try:
            await self._catch_up(opened)
        except BaseException:
            del self._collections[uid]
            await opened.close()
            raise
        opened.caught_up = True

    async def drop(self, uid: int) -> None:
        """Closes a deleted collection's shards and removes their files."""
        opened = self._collections.pop(uid, None)
        if opened is not None:
            await self._remove(opened)

    def retire(self, uid: int) -> None:
        """Drops a collection in a while that another has taken the place of: searches that began with it end with it."""
        opened = self._collections.pop(uid, None)
        if opened is not None:
            self._retired[uid] = opened
            self._retiring.append(asyncio.create_task(self._remove_retired(uid)))

    async def close(self) -> None:
        """Stops listening and following. What was applied is in the record; the files have it up to the last checkpoint."""
        await _ended(task for task in (self._watching, self._looking, *self._retiring) if task is not None)
        await asyncio.gather(
            *(opened.close() for opened in self._collections.values()), *map(self._remove, self._retired.values())
        )

    def replicas(self) -> list[Replica]:
        """Every shard that is open here."""
        return [replica for opened in self._collections.values() for replica in opened.replicas.values()]

    def by_collection(self) -> dict[str, list[Replica]]:
        """Every shard that is open here, by its collection's id."""
        return {opened.collection.spec.id: list(opened.replicas.values()) for opened in list(self._collections.values())}

    def of(self, uid: int) -> list[Replica]:
        """A collection's shards that are open here."""
        opened = self._collections.get(uid)
        return list(opened.replicas.values()) if opened else []

    def statuses(self, uid: int) -> list[ShardStatus]:
        """The state of a collection's shards that lie here."""
        return [replica.status() for replica in self.of(uid)]

    def offer(self, uid: int, changes: Mapping[int, Changes]) -> None:
        """Hands over what was committed here, shard by shard."""
        opened = self._collections.get(uid)
        for shard, each in changes.items():
            if opened is not None and shard in opened.replicas:
                opened.replicas[shard].offer(each)

    async def visible(self, uid: int, positions: Mapping[int, int]) -> None:
        """Returns when searches of the shards that lie here see those positions."""
        opened = self._collections.get(uid)
        if opened is not None:
            for shard, position in positions.items():
                if shard in opened.replicas:
                    await opened.replicas[shard].follower.reached(position, deadline.patience_s(self._wait_s))

    async def search(self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], /) -> list[ShardAnswer]:
        """Searches some of the shards with all of the queries."""
        if len(shards) == 1:
            ((shard, at_least),) = shards.items()
            return [await self._search(uid, shard, at_least, queries)]
        searches = (self._search(uid, shard, at_least, queries) for shard, at_least in shards.items())
        return list(await asyncio.gather(*searches))

    async def fetch(self, uid: int, shard: int, at_least: int, sequences: Sequences, /, *, with_vectors: bool) -> FetchedRows:
        """Rows by number."""
        return await (await self._at(uid, shard, at_least)).fetch(sequences, with_vectors=with_vectors)

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility, /) -> MatchedRows:
        """All rows that match."""
        return await (await self._at(uid, shard, at_least)).match(filter_, visibility)

    async def _catch_up(self, opened: _Open) -> None:
        following = [(shard, each) for shard, replica in opened.replicas.items() for each in replica.followers]
        opened.following = [asyncio.create_task(self._follow(follower)) for _, follower in following]
        positions = await self._record.positions(opened.collection.uid)
        await asyncio.gather(*(each.reached(positions.get(shard, 0), _CATCH_UP_S) for shard, each in following))

    async def _search(self, uid: int, shard: int, at_least: int, queries: Sequence[ShardQuery]) -> ShardAnswer:
        replica = await self._at(uid, shard, at_least)
        with inner_span(self._tracer, "faiss.search") as span:
            found = await replica.search(queries)
            if span.is_recording():
                span.set_attribute(semconv.PENSTOCK_SHARD, shard)
                span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(queries))
                hits = sum(len(each.dense.sequences) for each in found if each.dense is not None)
                span.set_attribute(semconv.PENSTOCK_HIT_COUNT, hits)
        return ShardAnswer(shard=shard, found=found, row_count=replica.index.row_count)

    async def _at(self, uid: int, shard: int, at_least: int) -> Replica:
        """The shard, once it has reached a position."""
        replica = self._find(uid, shard)
        if replica is None and self.on_unknown is not None:
            await self.on_unknown()
            replica = self._find(uid, shard)
        if replica is None:
            raise self._absent(uid, shard)
        if at_least > replica.position:
            await replica.follower.reached(at_least, deadline.patience_s(self._wait_s))
        return replica

    async def _remove_retired(self, uid: int) -> None:
        await asyncio.sleep(_RETIRED_S)
        await self._remove(self._retired[uid])
        del self._retired[uid]

    async def _remove(self, opened: _Open) -> None:
        await opened.close()
        await asyncio.to_thread(shutil.rmtree, self._folder / str(opened.collection.uid), ignore_errors=True)

    def _find(self, uid: int, shard: int) -> Replica | None:
        opened = self._collections.get(uid) or self._retired.get(uid)
        return opened.replicas.get(shard) if opened and opened.caught_up else None

    def _absent(self, uid: int, shard: int) -> Exception:
        opened = self._collections.get(uid)
        if opened is None:
            return CollectionNotFound("the collection does not exist, or was deleted while it was searched")
        if not opened.caught_up:
            message = "the collection is being opened on this node; try again in a moment"
            return Unavailable(message, metadata={"shard": str(shard)}, retry_after_s=1.0)
        message = f"shard {shard} is not on this node; do all nodes have the same slot_targets?"
        return Unavailable(message, metadata={"shard": str(shard)})

    async def _watch(self) -> None:
        async for hint in self._record.watch():
            if hint.catalog:
                self._collections_changed()
            for (uid, shard), sequence in hint.positions.items():
                opened = self._collections.get(uid)
                if opened is not None and shard in opened.replicas:
                    opened.replicas[shard].hint(sequence)

    def _collections_changed(self) -> None:
        """Has the collections looked at. Opening one may take long, and nobody else's changes wait for it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        else:
            self._look_again = True

    async def _look(self) -> None:
        """Until nothing has changed meanwhile. What fails, as it does while the record is away, is tried again."""
        pause_s = _RETRY_S[0]
        self._look_again = True
        while self._look_again and self.on_unknown is not None:
            self._look_again = False
            try:
                await self.on_unknown()
                pause_s = _RETRY_S[0]
            except Exception as error:  # noqa: BLE001  # Whatever it is, the shards that are open go on.
                reason = error.message if isinstance(error, PenstockError) else repr(error)
                _log.warning("the collections could not be brought up to date, again in %.1f s: %s", pause_s, reason)
                self._look_again = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_S[1])

    async def _follow(self, follower: Follower) -> None:
        try:
            await follower.run()
        except Exception as error:  # The record has what the index has not; a start from the files brings them together.
            self._stop(f"{follower.key} could not follow its log: {error!r}")
            raise


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
