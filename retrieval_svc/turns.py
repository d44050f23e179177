"""When calls that belong together go out: all at once, and the next ones when those have ended.

A search goes to several slots. If each slot's calls had a rhythm of their own, a busy coordinator would find one or two queries
waiting whenever one of them is ready, and make a call of them (measured: 3 queries a call at 32 in flight with 4 slots). In
turns a slot's next call takes everything that came while the last turn was out.
"""

import asyncio
import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

Begin = Callable[[], "asyncio.Task[None] | None"]
"""Starts a call of what waits, or does nothing because nobody waits any more."""


@dataclass(slots=True, eq=False)
class _Group:
    wanting: list[Begin] = field(default_factory=list)
    open_turns: int = 0
    is_due: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class _Turn:
    key: Hashable
    group: _Group
    calls: int
    late: asyncio.TimerHandle | None = None
    is_over: bool = False


class Turns:
    """At most `open_max` turns a group at a time. One that takes longer than `turn_max_s` is no longer waited for.

    So a slot that does not answer costs the others a moment, and not the time until its deadline.
    """

    def __init__(self, *, open_max: int, turn_max_s: float) -> None:
        self._open_max = open_max
        self._turn_max_s = turn_max_s
        self._groups: dict[Hashable, _Group] = {}

    def want(self, key: Hashable, begin: Begin) -> None:
        """Has `begin` called in the group's next turn."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        group.wanting.append(begin)
        self._schedule(key, group)

    def _schedule(self, key: Hashable, group: _Group) -> None:
        if not group.wanting:
            if not group.open_turns:
                self._groups.pop(key, None)
        elif not group.is_due and group.open_turns < self._open_max:
            group.is_due = True
            # Not at once: more may come in this round of the loop.
            asyncio.get_running_loop().call_soon(self._begin, key, group)

    def _begin(self, key: Hashable, group: _Group) -> None:
        group.is_due = False
        wanting, group.wanting = group.wanting, []
        calls = [call for begin in wanting if (call := begin()) is not None]
        if calls:
            group.open_turns += 1
            turn = _Turn(key=key, group=group, calls=len(calls))
            turn.late = asyncio.get_running_loop().call_later(self._turn_max_s, self._over, turn)
            for call in calls:
                call.add_done_callback(functools.partial(self._ended, turn))
        self._schedule(key, group)

    def _ended(self, turn: _Turn, _: object) -> None:
        turn.calls -= 1
        if not turn.calls and turn.late is not None:
            turn.late.cancel()
            self._over(turn)

    def _over(self, turn: _Turn) -> None:
        if not turn.is_over:
            turn.is_over = True
            turn.group.open_turns -= 1
            self._schedule(turn.key, turn.group)
