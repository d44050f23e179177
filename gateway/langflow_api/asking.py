"""From what a client of LangFlow asks for to a run of ours, and from the run's result to the texts of its components."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from google.protobuf import struct_pb2

from gateway.langflow_api.face import Face
from gateway.langflow_api.new_id import new_id
from gateway.langflow_api.tweaks import settings
from gateway.origin import Component
from gateway.structs import from_struct, to_struct
from gateway.values import as_text
from penstock.flow.v1 import flow_pb2

_SESSION_BYTES_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run that is asked for. `session` is the client's name of it; `run` the run's id for LangFlow's clients."""

    face: Face
    inputs: Mapping[str, Any]
    overrides: Mapping[str, Any]
    session: str
    input_value: str | None = None
    run: str = field(default_factory=new_id)

    def request(self) -> flow_pb2.RunFlowRequest:
        """The run's request."""
        request = flow_pb2.RunFlowRequest(
            name=f"flows/{self.face.flow_id}", inputs=to_struct(self.inputs), session=memory(self.face.id, self.session)
        )
        if self.overrides:
            request.overrides.CopyFrom(to_struct(self.overrides))
        return request

    def stream_request(self, *, node_outputs: bool) -> flow_pb2.StreamFlowRequest:
        """The same as a stream; what nodes give is told where the flow lets it be."""
        asked = self.request()
        return flow_pb2.StreamFlowRequest(
            name=asked.name,
            inputs=asked.inputs,
            session=asked.session,
            overrides=asked.overrides if self.overrides else None,
            node_outputs=node_outputs and self.face.is_open,
        )

    def given(self, component: Component) -> str:
        """The text that an input component is given."""
        name = component.input or ""
        declared = self.face.inputs.get(name)
        value = self.inputs.get(name, declared.default if declared else "")
        return "" if value is None else as_text(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run came to: the texts of components by their ids, and the tokens of all its models where any were asked."""

    texts: Mapping[str, str]
    usage: Mapping[str, int] | None = None

    @property
    def usage_json(self) -> bytes:
        """The usage as LangFlow's messages have it."""
        return b"null" if self.usage is None else orjson.dumps(self.usage)


def ask(
    face: Face,
    *,
    input_value: str | None,
    input_type: str | None,
    components: Iterable[str] = (),
    tweaks: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    session: str | None = None,
) -> Asked:
    """The run that is asked for. The input value stands before a tweak of the same input. Raises Refused."""
    made = settings(face, tweaks or {}, variables or {})
    if input_value is not None:
        for component in face.chosen_inputs(input_type, components):
            made.inputs[component.input or ""] = input_value
    return Asked(face=face, inputs=made.inputs, overrides=made.overrides, session=session or face.id, input_value=input_value)


def memory(flow: str, session: str) -> str:
    """The session of ours that a client's stands for: in LangFlow a session's messages are those of one flow."""
    name = session if session == flow else f"{flow}/{session}"
    if len(name.encode()) <= _SESSION_BYTES_MAX:
        return name
    return f"{flow}/{hashlib.sha256(session.encode()).hexdigest()}"


def ran(asked: Asked, response: flow_pb2.RunFlowResponse, nodes: Mapping[str, str] | None = None) -> Ran:
    """What a response says. `nodes` are the texts of components that are no outputs."""
    face, fields = asked.face, response.outputs.fields
    texts = dict(nodes or {})
    for component in face.outputs:
        if component.output in fields:  # Not one that only a branch not taken would have fed.
            texts[component.id] = value_text(fields[component.output or ""])
    return Ran(texts=texts, usage=usage(response.usage))


def usage(spent: flow_pb2.Usage) -> Mapping[str, int] | None:
    """Tokens as LangFlow counts them."""
    total = spent.input_tokens + spent.output_tokens
    if not total:
        return None
    return {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens, "total_tokens": total}


def value_text(value: struct_pb2.Value) -> str:
    """A value as a chat shows it; what is no text as a block of JSON, as LangFlow's chat output writes it."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    plain = from_struct(struct_pb2.Struct(fields={"value": value}))["value"]
    if isinstance(plain, dict | list):
        return f"```json\n{orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode()}\n```"
    return "" if plain is None else as_text(plain)


def chosen_outputs(face: Face, output_type: str | None, names: Sequence[str]) -> tuple[Component, ...]:
    """The components whose results are answered: those of these names, or the outputs of a type."""
    if names:
        return tuple(face.named(names))
    if output_type == "debug":
        return face.components
    if output_type in (None, "any"):
        return face.outputs
    role = f"{output_type}_output"
    chosen = tuple(each for each in face.outputs if output_type in each.id.lower() or each.role == role)
    return chosen or face.outputs  # LangFlow answers all of them where there is none of the type.
