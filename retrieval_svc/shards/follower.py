"""Brings one replica along its shard's log.

    commit here ──── offer ─┐
    elsewhere ────── hint ──┴─> run: the next changes, offered or read from the record ─> apply ─> position ─> who waits for it

The log is read in order and applied in order, so that a replica at position n has the effect of every change up to n.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, Protocol

from penstock.errors import DeadlineExceeded, PenstockError
from retrieval_svc.values import Changes

_log = logging.getLogger(__name__)

AT: Final = "position"
ASKED: Final = "asked_position"

_READ_MAX: Final = 4096
"""Entries of the log that are read at a time."""
_OFFERS_MAX: Final = 64
"""Changes that may wait for those before them; what is over is read from the record."""
_GAP_S: Final = 0.02
"""How long an offer waits for the one before it, which is usually on its way, before the record is read."""
_RETRY_S: Final = (0.1, 5.0)
"""First and longest pause after the record could not be read."""


class ChangeReader(Protocol):
    """The record, as its followers see it."""

    async def changes(self, uid: int, shard: int, after: int, limit: int) -> Changes:
        """The log above `after`, about `limit` entries of it; nothing new: `through` equals `after`.

        Raises LogTrimmed when entries above `after` are gone.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardKey:
    """A shard of a collection."""

    uid: int
    shard: int


class LogTrimmedError(Exception):
    """The log no longer has what a follower asked for: it starts anew from the rows that are stored."""


@dataclass(slots=True, kw_only=True)
class Follower:
    """`apply` makes changes searchable; `rebuild` starts the replica anew and gives its position."""

    key: ShardKey
    reader: ChangeReader
    position: int
    apply: Callable[[Changes], Awaitable[None]]
    rebuild: Callable[[], Awaitable[int]]
    subject: str = "shard"
    """Of what errors speak."""
    known: int = 0
    """The highest sequence number that anybody told of."""
    failure: str = ""
    """Why it could not go on when it tried last."""
    _offers: dict[int, Changes] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    _tickets: int = 0

    @property
    def lag(self) -> int:
        """Changes that are known of and not yet applied."""
        return max(0, self.known - self.position)

    def offer(self, changes: Changes) -> None:
        """Takes what was committed here, so that it need not be read back."""
        if changes.through > self.position and len(self._offers) < _OFFERS_MAX:
            self._offers[changes.after] = changes
        self.known = max(self.known, changes.through)
        self._wake.set()

    def hint(self, sequence: int) -> None:
        """Hears that the log goes up to `sequence`."""
        if sequence > self.known:
            self.known = sequence
            self._wake.set()

    def fall_back(self, position: int) -> None:
        """Hears that what came after `position` was lost, and follows from there anew."""
        if position < self.position:
            self.position = position
            self._wake.set()

    async def reached(self, position: int, timeout_s: float) -> None:
        """Returns when the replica has that position. Raises DeadlineExceeded, which has AT and ASKED in its metadata."""
        if position <= self.position:
            return
        self.hint(position)
        future = asyncio.get_running_loop().create_future()
        self._tickets += 1
        heappush(self._waiting, (position, self._tickets, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError as error:
            place = f"{self.subject} {self.key.shard} is at position {self.position}"
            reason = f": {self.failure}" if self.failure else ""
            message = f"{place}, and {position} was asked for and did not come within {timeout_s:.3g} s{reason}"
            metadata = {"shard": str(self.key.shard), AT: str(self.position), ASKED: str(position)}
            raise DeadlineExceeded(message, metadata=metadata) from error

    async def run(self) -> None:
        """Follows for ever."""
        pause_s = _RETRY_S[0]
        while True:
            try:
                await self._step()
                self.failure = ""
                pause_s = _RETRY_S[0]
            except PenstockError as error:
                self.failure = error.message
                _log.warning("%s cannot follow its log, trying again in %.1f s: %s", self.key, pause_s, error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_S[1])

    async def _step(self) -> None:
        changes = await self._offered()
        if changes is None and self.known <= self.position:
            await self._wake.wait()
            return
        try:
            changes = changes or await self.reader.changes(self.key.uid, self.key.shard, self.position, _READ_MAX)
        except LogTrimmedError:
            _log.warning("%s: the log no longer goes back to %d; the index is built anew", self.key, self.position)
            self._advance(await self.rebuild())
            return
        if changes.through == self.position:  # A hint of what is not there: a write that was rolled back.
            self.known = self.position
            return
        await self.apply(changes)
        self._advance(changes.through)

    async def _offered(self) -> Changes | None:
        """The next changes if they were offered, waiting a moment for those that others wait for."""
        self._wake.clear()
        self._forget_stale_offers()
        if self._offers and self.position not in self._offers:
            try:
                async with asyncio.timeout(_GAP_S):
                    while self.position not in self._offers:
                        await self._wake.wait()
                        self._wake.clear()
            except TimeoutError:
                return None
        return self._offers.pop(self.position, None)

    def _forget_stale_offers(self) -> None:
        for after in [after for after in self._offers if after < self.position]:
            del self._offers[after]

    def _advance(self, position: int) -> None:
        self.position = position
        self.known = max(self.known, position)
        while self._waiting and self._waiting[0][0] <= position:
            _, _, future = heappop(self._waiting)
            if not future.done():
                future.set_result(None)
