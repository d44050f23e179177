"""Conversations in this process: for one gateway, and for as long as it runs. Several gateways share theirs in Redis."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.execution import ChatMessage


@dataclass(slots=True)
class _Kept:
    messages: deque[ChatMessage]
    expires_at: float = field(default=0.0)


class MemorySessions:
    """The Sessions port. At most `sessions_max`, the least recently written leaves first; each forgotten `expiry_s` after its
    last message, and of each the newest `messages_max`. `tenant` says whose a session is.
    """

    def __init__(
        self,
        *,
        sessions_max: int = 10_000,
        messages_max: int = 200,
        expiry_s: float = 24 * 3600.0,
        tenant: Callable[[], str] = lambda: "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions_max = sessions_max
        self._messages_max = messages_max
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
        key = self._tenant(), session
        kept = self._kept.setdefault(key, _Kept(deque(maxlen=self._messages_max)))
        kept.messages.extend(messages)
        kept.expires_at = self._now() + self._expiry_s
        self._kept.move_to_end(key)
        while len(self._kept) > self._sessions_max:
            self._kept.popitem(last=False)

    def _forget(self) -> None:
        """All that has expired: those written longest ago stand first."""
        now = self._now()
        while self._kept and next(iter(self._kept.values())).expires_at <= now:
            self._kept.popitem(last=False)
