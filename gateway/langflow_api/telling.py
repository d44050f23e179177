"""A run as it happens, in terms of LangFlow's components: what its three streams are made of.

Tokens are told of models that feed an output directly, and of no others: what a model says to another node is not the answer.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Ran, ran, value_text
from gateway.langflow_api.calls import STREAM
from gateway.langflow_api.face import output_name
from gateway.origin import Component
from penstock.encoded import message_of
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall
from penstock.wire import from_status


@dataclass(frozen=True, slots=True)
class Begun:
    """The run has begun: its caller was let in."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message stands in the chat. `partial`: its tokens follow; then it comes again, whole."""

    component: Component
    text: str
    usage: bytes = b"null"
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """More of the message of a component."""

    component: Component
    text: str


@dataclass(frozen=True, slots=True)
class Built:
    """A component has given its output."""

    component: Component
    text: str
    duration_s: float
    usage: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Ended:
    """The run has ended well."""

    ran: Ran


Happening = Begun | Said | Token | Built | Ended


async def tell(call: DialectCall, telling: Telling, *, node_outputs: bool = False) -> AsyncGenerator[Happening, None]:
    """Runs and tells. Raises PenstockError, before Begun where there is no run."""
    teller = _Teller(telling)
    request = telling.asked.stream_request(node_outputs=node_outputs)
    async with aclosing(call.stream(STREAM, request)) as events:  # type: ignore[type-var]
        async for encoded in events:
            event = message_of(encoded)
            kind = event.WhichOneof("event")
            if not teller.begun:
                for happening in teller.begin():
                    yield happening
            if kind == "token":
                for happening in teller.token(event.token):
                    yield happening
            elif kind == "node_finished":
                for happening in teller.finished(event.node_finished):
                    yield happening
            elif kind == "done":
                for happening in teller.end(event.done):
                    yield happening
            elif kind == "error":
                raise from_status(event.error)


@dataclass(slots=True)
class _Teller:
    telling: Telling
    begun: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, set[str]] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)

    def begin(self) -> Iterator[Happening]:
        self.begun = True
        yield Begun()
        for component in self.telling.asked.face.components:
            self.waiting[component.id] = set(component.nodes)
            if component.role == "chat_input":
                text = self.texts[component.id] = self.telling.asked.given(component)
                yield Said(component, text)

    def token(self, token: flow_pb2.StreamFlowResponse.Token) -> Iterator[Happening]:
        text = token.text
        if not text:
            return
        for component in self.telling.asked.face.streamed.get(token.node_id, ()):
            if component.id not in self.telling.streamed:
                self.telling.streamed.add(component.id)
                yield Said(component, text, partial=True)
            yield Token(component, text)

    def finished(self, node: flow_pb2.StreamFlowResponse.NodeFinished) -> Iterator[Happening]:
        face = self.telling.asked.face
        component = face.part_of.get(node.node_id)
        for each, port in face.told_by.get(node.node_id, ()):
            if port in node.outputs.fields:
                self.texts[each.id] = value_text(node.outputs.fields[port])
            if not each.nodes and each.id not in face.output_ids:
                yield Built(each, self.texts.get(each.id, ""), 0.0)
        if component is None:
            return
        self.took_s[component.id] = self.took_s.get(component.id, 0.0) + node.duration_s
        if component.id in face.output_ids:
            return  # Told at the end, when its text is known.
        self._note(component, node)
        waiting = self.waiting[component.id]
        waiting.discard(node.node_id)
        if not waiting:
            yield Built(component, self.texts.get(component.id, ""), self.took_s[component.id])

    def end(self, response: flow_pb2.RunFlowResponse) -> Iterator[Happening]:
        asked, streamed = self.telling.asked, self.telling.streamed
        ended = ran(asked, response, self.texts)
        for component in asked.face.outputs:
            text = ended.texts.get(component.id)
            if text is None:
                continue
            usage = self.telling.usage_of(component, ended)
            if component.role == "chat_output":
                yield Said(component, text, usage)
                if component.id in streamed or usage != b"null":
                    yield Said(component, text, usage)  # LangFlow says it again when it knows more of it, or knew it before.
            yield Built(component, text, self.took_s.get(component.id, 0.0), usage)
        yield Ended(ended)

    def _note(self, component: Component, node: flow_pb2.StreamFlowResponse.NodeFinished) -> None:
        """Takes the text of a component that says what it is given, or whose origin does not tell which port is its own."""
        fields = node.outputs.fields
        if component.role.endswith("_input") or component.role == "webhook":
            self.texts[component.id] = self.telling.asked.given(component)
        elif not component.outputs and len(fields):
            name = output_name(component)
            self.texts[component.id] = value_text(fields[name if name in fields else min(fields)])
