"""Messages of runs as LangFlow keeps them: what users said and flows answered, by flow and session.

They are kept in this process, for as long and as many as is said here; a conversation that a flow remembers is kept where all
sessions are (sessions.py), and forgotten with its messages.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Ran
from gateway.langflow_api.messages import Template, Values, is_chat, sender, template
from penstock import identity

TEXT_CHARS_MAX: Final = 64 * 1024
"""Of a longer message the list has this much."""
_RUN_BYTES: Final = 2048
"""What a run takes beside its texts, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A message, rendered when it is asked for."""

    id: str
    sender: str
    sender_name: str
    timestamp: str
    template: Template
    values: Values

    def render(self) -> bytes:
        """Its JSON."""
        return self.template.render(self.values)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that has ended well: its messages are made when they are asked for."""

    telling: Telling
    ended: Ran
    size: int

    def rows(self) -> Iterator[Row]:
        asked = self.telling.asked
        for component in asked.face.components:
            text = asked.given(component) if component.role == "chat_input" else self.ended.texts.get(component.id)
            if text is not None and is_chat(component):
                side, name = sender(component)
                usage = self.telling.usage_of(component, self.ended)
                yield Row(
                    id=self.telling.id_of(component),
                    sender=side,
                    sender_name=name,
                    timestamp=self.telling.time_of(component),
                    template=template(asked.face, "row", component),
                    values=self.telling.values(component, text[:TEXT_CHARS_MAX], usage=usage),
                )


@dataclass(slots=True)
class _Kept:
    runs: deque[_Run] = field(default_factory=deque)
    forgotten: set[str] = field(default_factory=set)
    size: int = 0
    expires_at: float = 0.0


class MessageLog:
    """At most `sessions_max` sessions, the least recently written leaves first; of each the newest `runs_max` runs, and of all
    of them `bytes_max`; each forgotten `expiry_s` after its last message.
    """

    def __init__(
        self,
        *,
        sessions_max: int = 2000,
        runs_max: int = 100,
        bytes_max: int = 16 * 2**20,
        expiry_s: float = 24 * 3600.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions_max = sessions_max
        self._runs_max = runs_max
        self._bytes_max = bytes_max
        self._expiry_s = expiry_s
        self._now = now
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()  # By tenant, flow and session.

    def add(self, telling: Telling, ended: Ran) -> None:
        """Keeps the messages of a run that has ended well, the caller's tenant's."""
        asked = telling.asked
        for component in asked.face.outputs:
            telling.time_of(component)  # Now, where it has not been told.
        key = identity.current().tenant, asked.face.id, asked.session
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept()
        texts = (*ended.texts.values(), *(value for value in asked.inputs.values() if isinstance(value, str)))
        size = _RUN_BYTES + sum(map(len, texts))
        kept.runs.append(_Run(telling, ended, size))
        kept.size += size
        self._bytes += size
        while len(kept.runs) > self._runs_max:
            dropped = kept.runs.popleft().size
            kept.size -= dropped
            self._bytes -= dropped
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
            for run in kept.runs
            for row in run.rows()
            if row.id not in kept.forgotten
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
        for (owner, _, _), kept in self._kept.items():
            if owner == tenant:
                kept.forgotten |= {row.id for run in kept.runs for row in run.rows() if row.id in wanted}

    def _forget(self) -> None:
        """What has expired, and what is too much: sessions written longest ago stand first."""
        now = self._now()
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.expires_at > now and len(self._kept) <= self._sessions_max and self._bytes <= self._bytes_max:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str, str]) -> None:
        self._bytes -= self._kept.pop(key).size
