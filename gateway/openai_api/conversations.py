"""What went before a response: a later request names it by previous_response_id, and any of them can be gone on from."""

import asyncio
import re
import secrets
from collections.abc import Sequence
from contextvars import Context
from typing import Final

from gateway.backends import Sessions
from gateway.execution import ChatMessage
from gateway.openai_api.fields import refused

TURNS_MAX: Final = 200
_ID: Final = re.compile(r"resp_[0-9a-f]{32}")


def response_id() -> str:
    """A new response's id, which nobody can guess."""
    return f"resp_{secrets.token_hex(16)}"


class Conversations:
    """Keeps the turns up to each response among the sessions: as long as those, for the same tenant alone."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def before(self, previous: str) -> tuple[ChatMessage, ...]:
        """The turns up to a response and its answer. Raises InvalidArgument where it is not, or no longer, known."""
        turns = await self._sessions.read(_session(previous), TURNS_MAX) if _ID.fullmatch(previous) else ()
        if not turns:
            error = refused("previous_response_id", f"no response {previous[:80]!r} is kept here")
            error.metadata["code"] = "previous_response_not_found"
            raise error
        return turns

    async def keep(self, response: str, turns: Sequence[ChatMessage], context: Context) -> None:
        """Keeps the turns up to a response, for the caller whose call `context` is of."""
        await asyncio.create_task(self._sessions.append(_session(response), turns[-TURNS_MAX:]), context=context)


def _session(response: str) -> str:
    return f"openai/{response}"
