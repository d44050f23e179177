"""The conversation that a run belongs to: where its turns come from, and turns as JSON."""

from typing import Any, Final

from gateway.backends import Sessions
from gateway.execution import ChatMessage, Run
from gateway.faults import quoted
from penstock.errors import FailedPrecondition

ROLES: Final = ("system", "user", "assistant", "tool")


async def turns_before(run: Run, sessions: Sessions, messages_max: int) -> tuple[ChatMessage, ...]:
    """The newest turns before this run, oldest first: those that the caller gives, or else those of the session."""
    call = run.call
    if call.messages is not None:
        return call.messages[-messages_max:]
    return await sessions.read(call.session, messages_max) if call.session else ()


def as_turns(value: Any, messages_max: int) -> tuple[ChatMessage, ...]:
    """A JSON value as turns: [{"role": "user", "content": "..."}]. Raises FailedPrecondition."""
    if not isinstance(value, list | tuple) or len(value) > messages_max:
        found = f"{len(value)} items" if isinstance(value, list | tuple) else quoted(value)
        raise FailedPrecondition(f"messages must be a list of at most {messages_max} turns; found {found}")
    return tuple(_turn(each, index) for index, each in enumerate(value))


def as_json_turns(turns: tuple[ChatMessage, ...]) -> list[dict[str, str]]:
    """Turns as a JSON value."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _turn(value: Any, index: int) -> ChatMessage:
    if isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str):
        return ChatMessage(role=value["role"], content=value["content"])
    raise FailedPrecondition(
        f'messages[{index}] must be {{"role": ..., "content": ...}} with a text, the role one of {", ".join(ROLES)}; '
        f"found {quoted(value)}"
    )
