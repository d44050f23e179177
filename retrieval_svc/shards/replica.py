"""One shard on this node: its vectors and metadata, its words, and its place in the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from opentelemetry import trace
from opentelemetry.trace import Tracer

from penstock import deadline, semconv
from penstock.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from penstock.tracing import inner_span
from retrieval_svc.filters import Filter
from retrieval_svc.shards.follower import ChangeReader, Follower, ShardKey
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.shards.threads import Found, IndexThread, TaskThread
from retrieval_svc.values import (
    EVERYTHING,
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

_log = logging.getLogger(__name__)

_WORDS_WAIT_S: Final = 30.0
"""How long a search for words waits for them to have what is seen by vector."""
_TEXTS_AT_A_TIME: Final = 512


class WordIndex(Protocol):
    """The words of a shard's rows. Used from one thread, never two at a time."""

    @property
    def position(self) -> int:
        """The last change that it has."""
        ...

    def apply(self, changes: Changes) -> None:
        """Takes in changes, of which it may have some already."""
        ...

    def rebuild(self, rows: Iterable[tuple[int, str]], position: int) -> None:
        """Replaces everything by these rows, sequence number and text, as they are at a position."""
        ...

    def search(self, text: str, limit: int, allowed: Sequences | None, *, at_least: int) -> Ranked:
        """The best rows for the words of a text, of those that are allowed (ascending; None: all)."""
        ...

    def commit(self) -> None:
        """Makes what it has durable."""
        ...

    def copy_to(self, folder: Path) -> None:
        """Commits, and puts a copy into a new folder."""
        ...

    def close(self) -> None:
        """Commits, and gives back what it needs for changes until the next one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Where the work of all shards of the process is done."""

    index: IndexThread
    words: TaskThread


class Replica:
    """A shard's index and words behind their threads, each following the log on its own.

    So words that cannot be written, or are built anew, hold up nothing but searches for words.
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
        rebuild: Callable[["Replica"], Awaitable[int]],
        text_of: Callable[[bytes], str],
    ) -> None:
        self.key = key
        self.index = index
        self.words = words
        self._threads = threads
        self._tracer = tracer
        self._text_of = text_of
        self.follower = Follower(
            key=key, reader=reader, position=index.position, apply=self._apply, rebuild=partial(rebuild, self)
        )
        self.word_follower = None if words is None else self._word_follower(words, reader)

    @property
    def followers(self) -> list[Follower]:
        """What follows the log here."""
        return [self.follower, self.word_follower] if self.word_follower else [self.follower]

    @property
    def position(self) -> int:
        """The last change that searches by vector see."""
        return self.follower.position

    def offer(self, changes: Changes) -> None:
        """Takes what was committed here."""
        for follower in self.followers:
            follower.offer(changes)

    def hint(self, sequence: int) -> None:
        """Hears how far the log goes."""
        for follower in self.followers:
            follower.hint(sequence)

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

    def _word_follower(self, words: WordIndex, reader: ChangeReader) -> Follower:
        return Follower(
            key=self.key,
            reader=reader,
            position=words.position,
            apply=self._apply_words,
            rebuild=self.rebuild_words,
            subject="what has the words of shard",
        )

    async def copy_words(self, folder: Path) -> None:
        """Puts a copy of the words into a new folder, where there are any."""
        if self.words is not None:
            await self._threads.words.run(partial(self.words.copy_to, folder))

    async def close(self) -> None:
        """Gives back what the words hold, their lock among it; whoever opens the folder next needs that."""
        if self.words is not None:
            try:
                await self._threads.words.run(self.words.close)
            except Exception as error:  # noqa: BLE001  # What could not be written is in the record.
                _log.warning("%s: the words were not written at the end: %s", self.key, error)

    async def _by_vector(self, queries: Sequence[ShardQuery]) -> tuple[ShardFound, ...]:
        asked = [query for query in queries if query.vector is not None]
        filtered = [query for query in asked if query.filter is not None]
        if filtered and trace.get_current_span().is_recording():
            # So that a trace tells the filter's time from the search's; its result is kept for the search.
            await asyncio.gather(*map(self._allowed, filtered))
        found = iter(await self._threads.index.search(self.index, asked) if asked else ())
        return tuple(_dense(next(found)) if query.vector is not None else ShardFound() for query in queries)

    async def _with_words(self, query: ShardQuery, found: ShardFound) -> ShardFound:
        if not query.text:
            return found
        if self.words is None or self.word_follower is None:
            message = "the collection does not index the words of its texts; create one with lexical.enabled"
            raise FailedPrecondition(message)
        allowed = None
        if query.filter is not None or query.visibility.principals is not None or query.document_id:
            allowed = await self._allowed(query)
        with inner_span(self._tracer, "lexical") as span:
            sequences = None if allowed is None else allowed.sequences
            ranked = await self._search_words(query, sequences)
            span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(ranked.sequences))
        return replace(found, lexical=ranked, unmet=found.unmet or (() if allowed is None else allowed.unmet))

    async def _search_words(self, query: ShardQuery, allowed: Sequences | None) -> Ranked:
        """The best rows by words: among all that is seen by vector, or not at all.

        Words that could not be committed (a full disk) are lost, and their position with them: they follow the log anew from
        there, and the search waits for them. That is tried twice, for a writer may have died of a disk that has room again.
        """
        assert self.words is not None  # noqa: S101  # The caller has looked.
        at_least = self.position
        search = partial(self.words.search, query.text, query.limit, allowed, at_least=at_least)
        found = await self._found_by_words(search, at_least)
        if isinstance(found, Exception):
            found = await self._found_by_words(search, at_least)
        if isinstance(found, Exception):
            raise self._unwritable(found) from found
        return found

    async def _found_by_words(self, search: Callable[[], Ranked], at_least: int) -> Ranked | Exception:
        """What is found once the words have a position; or by what they lost it then."""
        assert self.words is not None  # noqa: S101  # The caller has looked.
        assert self.word_follower is not None  # noqa: S101
        self.word_follower.fall_back(self.words.position)
        await self._words_reached(self.word_follower, at_least)
        try:
            return await self._threads.words.run(search, always=False)
        except Exception as error:
            if self.words.position >= at_least:
                raise
            self.word_follower.fall_back(self.words.position)
            return error

    async def _words_reached(self, follower: Follower, position: int) -> None:
        """Raises Unavailable with the reason where words cannot be written, DeadlineExceeded where they are only late."""
        try:
            await follower.reached(position, deadline.patience_s(_WORDS_WAIT_S))
        except DeadlineExceeded as error:
            if not follower.failure:
                raise
            raise Unavailable(follower.failure, retry_after_s=1.0) from error

    async def _allowed(self, query: ShardQuery) -> MatchedRows | None:
        with inner_span(self._tracer, "filter") as span:
            allowed = await self._threads.index.run(partial(self.index.allowed, query))
            if allowed is not None:
                span.set_attribute(semconv.PENSTOCK_HIT_COUNT, len(allowed.sequences))
            return allowed

    async def _apply(self, changes: Changes) -> None:
        await self._threads.index.run(partial(self.index.apply, changes))

    async def _apply_words(self, changes: Changes) -> None:
        assert self.words is not None  # noqa: S101  # Else nothing follows for them.
        assert self.word_follower is not None  # noqa: S101
        try:
            await self._threads.words.run(partial(self.words.apply, changes))
        except Exception as error:
            self.word_follower.fall_back(self.words.position)  # What is durable; what came after is applied anew.
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> Unavailable:
        """What callers hear, without the folder's name."""
        _log.warning("%s: the words cannot be written: %s", self.key, error)
        message = f"the words of shard {self.key.shard} cannot be written now; searches by vector go on. Is the disk full?"
        return Unavailable(message, retry_after_s=1.0)

    async def rebuild_words(self) -> int:
        """Builds the words anew from the texts that the index has; the position that they are at then."""
        assert self.words is not None  # noqa: S101  # Else nothing follows for them.
        loop = asyncio.get_running_loop()
        position, sequences = await self._threads.index.run(self._rows_now)
        rows = self._texts(sequences, loop)
        await self._threads.words.run(partial(self.words.rebuild, rows, position))
        return position

    def _rows_now(self) -> tuple[int, Sequences]:
        return self.index.position, self.index.match(None, EVERYTHING).sequences

    def _texts(self, sequences: Sequences, loop: asyncio.AbstractEventLoop) -> Iterator[tuple[int, str]]:
        """The rows' texts, some at a time. Runs on the words' thread, which waits for the index's."""
        for first in range(0, len(sequences), _TEXTS_AT_A_TIME):
            part = sequences[first : first + _TEXTS_AT_A_TIME]
            reading = self._threads.index.run(partial(self.index.fetch, part, with_vectors=False))
            fetched = asyncio.run_coroutine_threadsafe(reading, loop).result()
            for sequence, chunk in zip(fetched.sequences.tolist(), fetched.chunks, strict=True):
                yield sequence, self._text_of(chunk)


def _dense(found: Found) -> ShardFound:
    ranked, unmet = found
    return ShardFound(dense=ranked, unmet=unmet)
