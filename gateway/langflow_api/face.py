"""A flow as a client of LangFlow sees it: components with ids and names, which of them are inputs and outputs, what feeds what.

Of an imported flow its origin says so. One that was written here has its own nodes as components: its first text input is the
chat input, its outputs are chat outputs, and whatever may be overridden is a field.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from gateway.flow_model import Flow, Node
from gateway.flows import Flows, remember
from gateway.langflow_api.calls import GET, known_flow
from gateway.nodes.spec import NodeParams
from gateway.origin import Component, Gives, Origin, Source, alias, read_origin
from gateway.values import PortType
from penstock.errors import FlowNotFound
from penstock.transcoding.dialect import DialectCall

INPUT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset({"chat_input"}),
    "text": frozenset({"text_input"}),
    "any": frozenset({"chat_input", "text_input", "webhook"}),
}
_SAY_WHAT_THEY_ARE_GIVEN: Final = frozenset({"chat_input", "text_input", "webhook"})
OUTPUTS: Final = frozenset({"chat_output", "text_output", "data_output"})
# The name of the first output of LangFlow's components, where the origin does not tell it.
_FIRST_OUTPUT: Final[Mapping[str, str]] = {
    "ChatInput": "message", "ChatOutput": "message", "TextInput": "text", "TextOutput": "text", "Prompt": "prompt",
    "Prompt Template": "prompt", "OpenAIModel": "text_output", "LanguageModelComponent": "text_output", "Agent": "response",
    "Webhook": "output_data", "parser": "parsed_text", "ParserComponent": "parsed_text", "Memory": "messages_text",
}  # fmt: skip


class Face:
    """What is known of a flow once and for all. `id` is the flow's id for LangFlow's clients, `flow_id` its own.

    `is_open`: a caller may set its nodes' parameters and see what they give.
    """

    def __init__(self, flow_id: str, flow: Flow) -> None:
        origin = read_origin(flow.origin) or _native(flow_id, flow)
        self.flow_id = flow_id
        self.content_hash = flow.content_hash
        self.id = alias(origin.id or "") or flow_id
        self.name = origin.name or flow_id
        self.endpoint_name = origin.endpoint_name
        self.description = flow.description
        self.components = tuple(origin.components)
        self.inputs = {each.name: each for each in flow.inputs}
        # As in LangFlow, of several components with one name it is the last that a caller addresses by it.
        self.by_name = {each.display_name: each for each in self.components} | {each.id: each for each in self.components}
        self.outputs = tuple(each for each in self.components if each.role in OUTPUTS and each.output in flow.outputs)
        self.output_ids = frozenset(each.id for each in self.outputs)
        self.nodes = {node.id: node for node in flow.nodes}
        self.is_open = flow.overrides == "all"
        self.made: dict[tuple[str, str], Any] = {}
        self._edges = flow.edges
        self._lax: dict[tuple[str, str], TypeAdapter[Any] | None] = {}

    @cached_property
    def part_of(self) -> Mapping[str, Component]:
        """The component of each node."""
        return {node_id: each for each in self.components for node_id in each.nodes}

    @cached_property
    def told_by(self) -> Mapping[str, tuple[tuple[Component, str], ...]]:
        """For each node the components whose first output one of its ports gives, with that port.

        A component may have no node of its own: what it gives is then made by another's.
        """
        told: dict[str, tuple[tuple[Component, str], ...]] = {}
        for each in self.components:
            node_id, _, port = each.outputs[0].port.partition(".") if each.outputs else ("", "", "")
            if node_id in self.nodes and each.role not in _SAY_WHAT_THEY_ARE_GIVEN:
                told[node_id] = (*told.get(node_id, ()), (each, port))
        return told

    @cached_property
    def streamed(self) -> Mapping[str, tuple[Component, ...]]:
        """The chat outputs that each generating node feeds directly."""
        by_output = {each.output: each for each in self.outputs}
        fed: dict[str, tuple[Component, ...]] = {}
        for edge in self._edges:
            source, target = self.nodes[edge.source], self.nodes[edge.target]
            if source.type in {"generate", "agent"} and edge.source_port == "text" and target.type == "output":
                output = by_output.get(target.params.name or target.id)
                if output is not None and output.role == "chat_output":
                    fed[source.id] = (*fed.get(source.id, ()), output)
        return fed

    @cached_property
    def successors(self) -> Mapping[str, tuple[str, ...]]:
        """The components that each component feeds."""
        fed: dict[str, dict[str, None]] = {each.id: {} for each in self.components}
        for edge in self._edges:
            source, target = self.part_of.get(edge.source), self.part_of.get(edge.target)
            if source is not None and target is not None and source is not target:
                fed[source.id][target.id] = None
        return {component: tuple(targets) for component, targets in fed.items()}

    @cached_property
    def first_layer(self) -> tuple[str, ...]:
        """The components that no other feeds."""
        fed = {target for targets in self.successors.values() for target in targets}
        return tuple(each.id for each in self.components if each.id not in fed)

    def chosen_inputs(self, kind: str | None, names: Iterable[str] = ()) -> list[Component]:
        """The input components of a type, or of any; of these names alone, where there are any."""
        roles, wanted = INPUT_TYPES[kind or "any"], frozenset(names)
        return [
            each
            for each in self.components
            if each.role in roles
            and each.input in self.inputs
            and (not wanted or each.id in wanted or each.display_name in wanted)
        ]

    def named(self, names: Iterable[str]) -> list[Component]:
        """The components with one of these ids or names."""
        wanted = frozenset(names)
        return [each for each in self.components if each.id in wanted or each.display_name in wanted]

    def lax(self, node_id: str, param: str, value: Any) -> Any:
        """A value as the node's parameter takes it: LangFlow lets "256" stand for 256."""
        key = node_id, param
        if key not in self._lax:
            self._lax[key] = _adapter(self.nodes.get(node_id), param)
        adapter = self._lax[key]
        if adapter is None:
            return value
        try:
            return adapter.validate_python(value)
        except ValidationError:
            return value  # Whoever overrides says what is wrong with it.

    def is_protected(self, component: Component, field: str) -> bool:
        """Whether no caller may set the field."""
        node_id, _, param = component.fields.get(field, "").partition(".")
        node = self.nodes.get(node_id)
        if field == "code" or field in component.protected:
            return True
        return node is not None and (node.body is not None or param in node.params.protected)


def output_name(component: Component) -> str:
    """What LangFlow calls the component's first output."""
    if component.outputs:
        return component.outputs[0].name
    return _FIRST_OUTPUT.get(component.type, "message" if component.role.startswith("chat") else "output")


class Faces:
    """The faces of the gateway's flows, the most recently used `most` of them kept."""

    def __init__(self, flows: Flows, most: int) -> None:
        self._flows = flows
        self._most = most
        self._kept: OrderedDict[str, Face] = OrderedDict()

    async def find(self, call: DialectCall, name: str, *, certain: bool = False) -> Face:
        """The face of the flow with this id, UUID or endpoint name. Raises FlowNotFound, after what the key deserves.

        A name that is known costs no call, and the run will look at the key; `certain` looks at it all the same.
        """
        flow_id = None if certain else self._flows.known(name)
        if flow_id is None:
            if not alias(name) or "/" in name:
                await call.unary(GET, FlowNotFound(f"there is no flow {name[:80]!r}"))
            flow_id = (await known_flow(call, name)).name.removeprefix("flows/")
        flow = (await self._flows.compiled(flow_id)).flow
        face = self._kept.get(flow_id)
        if face is None or face.content_hash != flow.content_hash:
            face = Face(flow_id, flow)
        remember(self._kept, flow_id, face, self._most)
        return face


def _native(flow_id: str, flow: Flow) -> Origin:
    """What would be the origin of a flow that was written here."""
    chat = next((each.name for each in flow.inputs if each.type is PortType.TEXT), None)
    feeding = {edge.target: edge.source for edge in flow.edges}
    nodes = {node.id: node for node in flow.nodes}
    components = [_component(node, chat, nodes.get(feeding.get(node.id, ""))) for node in flow.nodes]
    return Origin(format="penstock", name=flow_id, components=components)


def _component(node: Node, chat: str | None, source: Node | None) -> Component:
    about: dict[str, Any] = {"id": node.id, "type": node.type, "display_name": node.id, "nodes": [node.id]}
    if node.type == "input":
        name = node.params.name or node.id
        given = {"input": name, "fields": {"input_value": f"input:{name}", "value": f"input:{name}"}}
        return Component(**about, **given, role="chat_input" if name == chat else "")
    if node.type == "output":
        fed = Source(id=source.id, display_name=source.id, type=_made_by(source)) if source is not None else None
        return Component(**about, role="chat_output", output=node.params.name or node.id, source=fed)
    fields = {name: f"{node.id}.{name}" for name in type(node.params).model_fields}
    gives = [Gives(name=port.name, port=f"{node.id}.{port.name}") for port in node.ports.outputs]
    return Component(**about, fields=fields, protected=sorted(node.params.protected), outputs=gives)


def _made_by(source: Node) -> str:
    model: str = getattr(source.params, "model", "") if source.type in {"generate", "agent"} else ""
    return model or source.type


def _adapter(node: Node | None, param: str) -> TypeAdapter[Any] | None:
    params = type(node.params) if node is not None else NodeParams
    for name, info in params.model_fields.items():
        if param in (name, info.alias):
            return TypeAdapter(cast("type[Any]", info.annotation))
    return None
