"""Messages of runs as LangFlow keeps them: what users said and flows answered, by flow and session.

They are kept in this process, for as long and as many as is said here; a conversation that a flow remembers is kept where all
sessions are (sessions.py), and forgotten with its messages.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Ran
from gateway.langflow_api.messages import Template, Values, sender, template
from penstock import identity

TEXT_CHARS_MAX: Final = 64 * 1024
"""Of a longer message the list has this much."""
_ROW_BYTES: Final = 1024
"""What a message takes beside its text, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A message that is kept, rendered when it is asked for."""

    id: str
    sender: str
    sender_name: str
    timestamp: str
    template: Template
    values: Values

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.values["text"]) + _ROW_BYTES

    def render(self) -> bytes:
        """Its JSON."""
        return self.template.render(self.values)


@dataclass(slots=True)
class _Kept:
    rows: deque[Row] = field(default_factory=deque)
    expires_at: float = 0.0


class MessageLog:
    """At most `sessions_max` sessions, the least recently written leaves first; of each the newest `messages_max`, and of all
    of them `bytes_max`; each forgotten `expiry_s` after its last message.
    """

    def __init__(
        self,
        *,
        sessions_max: int = 10_000,
        messages_max: int = 200,
        bytes_max: int = 64 * 2**20,
        expiry_s: float = 24 * 3600.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions_max = sessions_max
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._expiry_s = expiry_s
        self._now = now
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()  # By tenant, flow and session.

    def add(self, telling: Telling, ended: Ran) -> None:
        """Keeps the messages of a run that has ended well, the caller's tenant's."""
        asked = telling.asked
        key = identity.current().tenant, asked.face.id, asked.session
        kept = self._kept.setdefault(key, _Kept())
        for component in asked.face.components:
            if component.role == "chat_input":
                text: str | None = asked.given(component)
            elif component.role == "chat_output":
                text = ended.texts.get(component.id)
            else:
                continue
            if text is not None:
                side, name = sender(component)
                usage = telling.usage_of(component, ended)
                row = Row(
                    id=telling.id_of(component),
                    sender=side,
                    sender_name=name,
                    timestamp=telling.time_of(component),
                    template=template(asked.face, "row", component),
                    values=telling.values(component, text[:TEXT_CHARS_MAX], usage=usage),
                )
                self._append(kept, row)
        kept.expires_at = self._now() + self._expiry_s
        self._kept.move_to_end(key)
        self._forget()

    def rows(self, tenant: str, flow: str | None = None, session: str | None = None) -> list[Row]:
        """A tenant's messages, the newest last."""
        self._forget()
        found = [
            row
            for (owner, of_flow, of_session), kept in self._kept.items()
            if owner == tenant and flow in (None, of_flow) and session in (None, of_session)
            for row in kept.rows
        ]
        return sorted(found, key=lambda row: row.timestamp)

    def sessions(self, tenant: str, flow: str | None = None) -> list[str]:
        """A tenant's sessions, those written last first."""
        self._forget()
        found = (key[2] for key in reversed(self._kept) if key[0] == tenant and flow in (None, key[1]))
        return list(dict.fromkeys(found))

    def forget_sessions(self, tenant: str, sessions: Iterable[str]) -> list[tuple[str, str]]:
        """Forgets sessions of a tenant; the (flow, session) of those that there were."""
        wanted = frozenset(sessions)
        gone = [key for key in self._kept if key[0] == tenant and key[2] in wanted]
        for key in gone:
            self._drop(key)
        return [(flow, session) for _, flow, session in gone]

    def forget_messages(self, tenant: str, ids: Iterable[str]) -> None:
        """Forgets single messages of a tenant."""
        wanted = frozenset(ids)
        for key, kept in self._kept.items():
            if key[0] == tenant and any(row.id in wanted for row in kept.rows):
                before = sum(row.size for row in kept.rows)
                kept.rows = deque(row for row in kept.rows if row.id not in wanted)
                self._bytes -= before - sum(row.size for row in kept.rows)

    def _append(self, kept: _Kept, row: Row) -> None:
        kept.rows.append(row)
        self._bytes += row.size
        while len(kept.rows) > self._messages_max:
            self._bytes -= kept.rows.popleft().size

    def _forget(self) -> None:
        """What has expired, and what is too much: sessions written longest ago stand first."""
        now = self._now()
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.expires_at > now and len(self._kept) <= self._sessions_max and self._bytes <= self._bytes_max:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str, str]) -> None:
        self._bytes -= sum(row.size for row in self._kept.pop(key).rows)
