"""The slot of this node: its shards are asked directly, without a message, and its fellow replicas help out."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import numpy as np
from opentelemetry import trace
from opentelemetry.trace import Span

from penstock.deadline import within
from penstock.errors import Overloaded, Unavailable
from retrieval_svc.cluster.remote_slot import RemoteSlot, rows_by_number
from retrieval_svc.cluster.shard_node import ShardNode
from retrieval_svc.filters import Filter
from retrieval_svc.search.gathering import FetchedRow
from retrieval_svc.values import MatchedRows, ShardAnswer, ShardQuery, Visibility

T = TypeVar("T")

_NOTHING: Final = contextlib.nullcontext()


class OwnSlot:
    """The shards of `node`, which is this process; `fellows` are asked where it is still loading them or has too much to do."""

    def __init__(self, node: ShardNode, fellows: RemoteSlot) -> None:
        self._node = node
        self._fellows = fellows

    async def search(
        self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], *, timeout_s: float, span: Span
    ) -> list[ShardAnswer]:
        """The slot's answers. Raises as ShardNode does."""
        with _recorded(span), within(timeout_s):
            try:
                return await self._node.search(uid, shards, queries)
            except (Unavailable, Overloaded):
                if not len(self._fellows):
                    raise
            return await self._fellows.search(uid, shards, queries, timeout_s=timeout_s, span=_within(span))

    async def fetch(
        self, uid: int, shard: int, sequences: Sequence[int], *, with_vectors: bool, timeout_s: float, span: Span
    ) -> dict[int, FetchedRow]:
        """The rows that are still there, by their numbers. Raises as ShardNode does."""
        with _recorded(span), within(timeout_s):
            return await self._first(
                self._fetch(uid, shard, sequences, with_vectors=with_vectors),
                lambda: self._fellows.fetch(
                    uid, shard, sequences, with_vectors=with_vectors, timeout_s=timeout_s, span=_within(span)
                ),
            )

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility) -> MatchedRows:
        """All rows of a shard that match. Raises as ShardNode does."""
        return await self._first(
            self._node.match(uid, shard, at_least, filter_, visibility),
            lambda: self._fellows.match(uid, shard, at_least, filter_, visibility),
        )

    async def _fetch(self, uid: int, shard: int, sequences: Sequence[int], *, with_vectors: bool) -> dict[int, FetchedRow]:
        wanted = np.asarray(sequences, dtype=np.int64)
        # Found by a fellow, maybe: the row's number is the position at which it is there.
        rows = await self._node.fetch(uid, shard, int(wanted.max()), wanted, with_vectors=with_vectors)
        return rows_by_number(rows)

    async def _first(self, own: Awaitable[T], fellows: Callable[[], Awaitable[T]]) -> T:
        try:
            return await own
        except (Unavailable, Overloaded):
            if not len(self._fellows):
                raise
        return await fellows()


def _within(span: Span) -> Span:
    """The same span, for calls under it that shall not end it."""
    return trace.NonRecordingSpan(span.get_span_context())


def _recorded(span: Span) -> AbstractContextManager[Any]:
    return trace.use_span(span, end_on_exit=True) if span.is_recording() else _NOTHING
