"""Conversations in this process: for one gateway, and for as long as it runs. Several gateways share theirs in Redis."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.execution import ChatMessage


@dataclass(slots=True)
class _Kept:
    messages: deque[ChatMessage] = field(default_factory=deque)
    chars: int = 0
    expires_at: float = 0.0


class MemorySessions:
    """The Sessions port. At most `sessions_max` with `chars_max` characters in all, the least recently written leaves first;
    each forgotten `expiry_s` after its last message, and of each the newest `messages_max`. `tenant` says whose a session is.
    """

    def __init__(
        self,
        *,
        sessions_max: int = 10_000,
        messages_max: int = 200,
        chars_max: int = 2**27,
        expiry_s: float = 24 * 3600.0,
        tenant: Callable[[], str] = lambda: "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions_max = sessions_max
        self._messages_max = messages_max
        self._chars_max = chars_max
        self._chars = 0
        self._expiry_s = expiry_s
        self._tenant = tenant
        self._now = now
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def read(self, session: str, messages_max: int) -> tuple[ChatMessage, ...]:
        self._forget()
        kept = self._kept.get((self._tenant(), session))
        return tuple(kept.messages)[-messages_max:] if kept and messages_max > 0 else ()

    async def append(self, session: str, messages: Sequence[ChatMessage]) -> None:
        self._forget()
        if not messages:
            return
        key = self._tenant(), session
        kept = self._kept.setdefault(key, _Kept())
        self._chars -= kept.chars
        _add(kept, messages, self._messages_max)
        self._chars += kept.chars
        kept.expires_at = self._now() + self._expiry_s
        self._kept.move_to_end(key)
        while len(self._kept) > self._sessions_max or self._chars > self._chars_max:
            self._drop_oldest()

    async def forget(self, session: str) -> None:
        dropped = self._kept.pop((self._tenant(), session), None)
        if dropped is not None:
            self._chars -= dropped.chars

    def _forget(self) -> None:
        """All that has expired: those written longest ago stand first."""
        now = self._now()
        while self._kept and next(iter(self._kept.values())).expires_at <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self._chars -= dropped.chars


def _add(kept: _Kept, messages: Sequence[ChatMessage], messages_max: int) -> None:
    for message in messages:
        kept.messages.append(message)
        kept.chars += len(message.content)
    while len(kept.messages) > messages_max:
        kept.chars -= len(kept.messages.popleft().content)
