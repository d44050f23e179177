"""One shard on this node: its vectors and metadata, its words, and its place in the log."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import Tracer

from penstock import semconv
from penstock.errors import FailedPrecondition
from retrieval_svc.filters import Filter
from retrieval_svc.shards.follower import ChangeReader, Follower, ShardKey
from retrieval_svc.shards.threads import Found, IndexThread, TaskThread
from retrieval_svc.values import (
    Changes,
    FetchedRows,
    MatchedRows,
    Ranked,
    Sequences,
    ShardFound,
    ShardQuery,
    ShardStatus,
    Visibility,
)


class WordIndex(Protocol):
    """The words of a shard's rows. Used from one thread, never two at a time."""

    @property
    def position(self) -> int:
        """The last change that it has."""
        ...

    def apply(self, changes: Changes) -> None:
        """Takes in changes, of which it may have some already."""
        ...

    def search(self, text: str, limit: int, allowed: Sequences | None) -> Ranked:
        """The best rows for the words of a text, of those that are allowed (ascending; None: all)."""
        ...

    def commit(self) -> None:
        """Makes what it has durable."""
        ...


class ShardIndex(Protocol):
    """The vectors, metadata and payloads of a shard's rows. Used from one thread, never two at a time."""

    @property
    def position(self) -> int:
        """The last change that it has."""
        ...

    def apply(self, changes: Changes) -> None:
        """Takes in the changes that follow its position."""
        ...

    def search(self, queries: Sequence[ShardQuery]) -> list[Found]:
        """The best rows of each query, by its vector."""
        ...

    def allowed(self, filter_: Filter | None, visibility: Visibility) -> MatchedRows | None:
        """The rows that match; None: all do."""
        ...

    def match(self, filter_: Filter | None, visibility: Visibility) -> MatchedRows:
        """The rows that match, written out."""
        ...

    def fetch(self, sequences: Sequences, *, with_vectors: bool) -> FetchedRows:
        """Rows by number."""
        ...

    def status(self) -> ShardStatus:
        """Its state, `record_position` being its own position."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Where the work of all shards of the process is done."""

    index: IndexThread
    words: TaskThread


class Replica:
    """A shard's index and words behind their threads, following the log.

    Changes go to the words first, on their own thread: what the index shows is then always among them.
    """

    def __init__(
        self,
        key: ShardKey,
        index: ShardIndex,
        words: WordIndex | None,
        *,
        reader: ChangeReader,
        threads: Threads,
        tracer: Tracer,
        rebuild: Callable[[], Awaitable[int]],
    ) -> None:
        self.key = key
        self.index = index
        self.words = words
        self._threads = threads
        self._tracer = tracer
        self.follower = Follower(key=key, reader=reader, position=index.position, apply=self._apply, rebuild=rebuild)

    @property
    def position(self) -> int:
        """The last change that searches see."""
        return self.follower.position

    async def search(self, queries: Sequence[ShardQuery]) -> tuple[ShardFound, ...]:
        """What each query finds here, by vector, by words, or by both."""
        by_vector = await self._by_vector(queries)
        if not any(query.text for query in queries):
            return by_vector
        return tuple(await asyncio.gather(*map(self._with_words, queries, by_vector)))

    async def fetch(self, sequences: Sequences, *, with_vectors: bool) -> FetchedRows:
        """Rows by number."""
        return await self._threads.index.run(partial(self.index.fetch, sequences, with_vectors=with_vectors))

    async def match(self, filter_: Filter | None, visibility: Visibility) -> MatchedRows:
        """The rows that match."""
        return await self._threads.index.run(partial(self.index.match, filter_, visibility))

    def status(self) -> ShardStatus:
        """Its state, with what is known of the record."""
        return replace(self.index.status(), record_position=max(self.follower.known, self.position))

    async def _by_vector(self, queries: Sequence[ShardQuery]) -> tuple[ShardFound, ...]:
        asked = [query for query in queries if query.vector is not None]
        if trace.get_current_span().is_recording():
            # So that a trace tells the filter's time from the search's; its result is kept for the search.
            await asyncio.gather(*(self._allowed(query) for query in asked if query.filter is not None))
        found = iter(await self._threads.index.search(self.index, asked) if asked else ())
        return tuple(_dense(next(found)) if query.vector is not None else ShardFound() for query in queries)

    async def _with_words(self, query: ShardQuery, found: ShardFound) -> ShardFound:
        if not query.text:
            return found
        if self.words is None:
            message = "the collection does not index the words of its texts; create one with lexical.enabled"
            raise FailedPrecondition(message)
        allowed = None
        if query.filter is not None or query.visibility.principals is not None:
            allowed = await self._allowed(query)
        sequences = None if allowed is None else allowed.sequences
        with self._tracer.start_as_current_span("lexical") as span:
            ranked = await self._threads.words.run(partial(self.words.search, query.text, query.limit, sequences))
            span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(ranked.sequences))
        return replace(found, lexical=ranked, unmet=found.unmet or (() if allowed is None else allowed.unmet))

    async def _allowed(self, query: ShardQuery) -> MatchedRows | None:
        with self._tracer.start_as_current_span("filter") as span:
            allowed = await self._threads.index.run(partial(self.index.allowed, query.filter, query.visibility))
            if allowed is not None:
                span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(allowed.sequences))
            return allowed

    async def _apply(self, changes: Changes) -> None:
        if self.words is not None:
            await self._threads.words.run(partial(self.words.apply, changes))
        await self._threads.index.run(partial(self.index.apply, changes))


def _dense(found: Found) -> ShardFound:
    ranked, unmet = found
    return ShardFound(dense=ranked, unmet=unmet)
