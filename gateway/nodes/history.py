"""history: the conversation so far, and what is added to it."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from gateway.backends import Backends
from gateway.execution import ChatMessage, Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.generate_params import MESSAGES_MAX
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, OneOf, Outputs, Pure, Work
from gateway.nodes.template import Template, checked_for
from gateway.nodes.turns import as_json_turns, turns_before
from gateway.values import ACCEPTED_BY, PortType, bounded_join
from penstock.errors import FailedPrecondition, MessageTooLarge

REMEMBERED_MAX: Final = 256
"""Messages that one run may add."""
MESSAGE_CHARS_MAX: Final = 2**18
"""Of one message: what is kept of conversations is kept for every session."""

Role = Literal["system", "user", "assistant", "tool"]


class HistoryRead(NodeParams):
    """The turns before this run: of the messages that the caller gives, or else of the session. None without either."""

    operation: Literal["read"]
    messages_max: int = Field(default=100, ge=1, le=MESSAGES_MAX, description="Most turns to read: the newest.")
    template: Annotated[str, AfterValidator(checked_for(frozenset({"role", "content"})))] = Field(
        default="{role}: {content}", max_length=4096, description="How a turn reads in text: of {role} and {content}."
    )
    separator: str = Field(default="\n", max_length=256, description="What stands between the turns.")
    role_names: dict[Role, Annotated[str, Field(max_length=64)]] = Field(
        default={}, description='What {role} reads as, where not the role itself: {"user": "User", "assistant": "AI"}.'
    )
    roles: list[Role] = Field(
        default=["system", "user", "assistant", "tool"], min_length=1, max_length=4, description="Whose turns are read."
    )
    newest_first: bool = Field(default=False, description="Turns the order round.")


class HistoryAppend(NodeParams):
    """Adds a text to the session once the run has ended well, and gives it on. Without a session, or where the caller gave the
    conversation itself, nothing is kept.
    """

    operation: Literal["append"]
    role: Role = Field(description="Who says it.")


_READ: Final = Ports(
    outputs=(OutputPort(name="text", type=PortType.TEXT, is_main=True), OutputPort(name="messages", type=PortType.JSON))
)
_APPEND: Final = Ports(
    inputs=(InputPort(name="text", accepts=ACCEPTED_BY[PortType.TEXT]),), outputs=(OutputPort(name="text", type=PortType.TEXT),)
)


def _ports(params: HistoryRead | HistoryAppend) -> Ports:
    return _READ if isinstance(params, HistoryRead) else _APPEND


def _work(params: HistoryRead | HistoryAppend, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It tells nothing.
    return _reading(params, backends) if isinstance(params, HistoryRead) else _appending(params)


def _reading(params: HistoryRead, backends: Backends) -> Work:
    template, sessions, kept_roles = Template(params.template), backends.sessions, frozenset(params.roles)
    names: Mapping[str, str] = {role: name for role, name in params.role_names.items()}  # noqa: C416  # Any text is a key.

    async def read(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It has no input ports.
        turns = await turns_before(run, sessions, params.messages_max)
        turns = tuple(turn for turn in turns if turn.role in kept_roles)
        if params.newest_first:
            turns = turns[::-1]
        lines = [template.render({"role": names.get(turn.role, turn.role), "content": turn.content}) for turn in turns]
        return {"text": bounded_join(lines, params.separator), "messages": as_json_turns(turns)}

    return Effect(read)


def _appending(params: HistoryAppend) -> Work:
    def append(inputs: Inputs, run: Run) -> Outputs:
        text: str = inputs["text"]
        if len(text) > MESSAGE_CHARS_MAX:
            raise MessageTooLarge(
                f"the message has {len(text)} characters; at most {MESSAGE_CHARS_MAX} are kept of one",
                metadata={"limit": str(MESSAGE_CHARS_MAX)},
            )
        if len(run.remembered) >= REMEMBERED_MAX:
            raise FailedPrecondition(f"the run would add more than {REMEMBERED_MAX} messages to its session")
        run.remembered.append(ChatMessage(role=params.role, content=text))
        return {"text": text}

    return Pure(append)


HISTORY: Final = NodeSpec(
    summary="Reads the conversation that the run belongs to, or adds to it.",
    params=OneOf(key="operation", models={"read": HistoryRead, "append": HistoryAppend}),
    ports=_ports,
    work=_work,
)
