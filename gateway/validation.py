"""From a flow document to a flow, or to everything that is wrong with it. Pure: nothing is called and nothing is kept.

    validate -> parse (document.py) -> _node ... -> wire (wiring.py) -> _check_graph

Each step adds its faults to what the others found and goes on with what is sound, so that one attempt tells a writer all of
them (up to faults.FAULTS_MAX).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from typing import Any, Final

from gateway.document import NodeDocument, Parsed, parse, parse_body
from gateway.faults import Faults, checked, quoted, suggestion
from gateway.flow_model import Bounds, Edge, Flow, Node
from gateway.nodes import NODE_TYPES
from gateway.nodes.input import GIVEN_TYPES, InputParams, declared
from gateway.nodes.output import OutputParams
from gateway.nodes.spec import BodySpec, NodeParams, OneOf, ToolDeclaration, ToolUserSpec
from gateway.values import PortType
from gateway.wiring import Wiring, wire
from penstock.errors import InvalidFlow, Violation

# A refusal travels in the trailers of a call, which hold 8 KiB with all their encoding. ValidateFlow lists everything.
REFUSAL_CHARS_MAX: Final = 4000
CYCLE_SHOWN_MAX: Final = 12
BODIES_MAX: Final = 4
"""Most maps and loops inside one another."""


def validate(document: str | bytes) -> Flow:
    """The flow that `document` says. Raises InvalidFlow with as many faults as REFUSAL_CHARS_MAX leaves room for."""
    flow, faults = examine(document)
    if flow is None:
        raise refusal(faults)
    return flow


def examine(document: str | bytes) -> tuple[Flow | None, tuple[Violation, ...]]:
    """The flow, or every fault of the document."""
    faults = Faults()
    parsed = parse(document, faults)
    flow = None if parsed is None else _assembled(parsed, faults, depth=0)
    return (None if faults else flow), faults.told()


def _assembled(parsed: Parsed, faults: Faults, *, depth: int) -> Flow | None:
    """The flow, or None and what is wrong with it. `depth` is how many nodes it is inside of."""
    nodes: dict[str, Node] = {}
    for written in parsed.nodes:
        node = _node(written, faults, depth)
        if node is not None:
            nodes[node.id] = node
    broken = parsed.mentioned | {written.id for written in parsed.nodes if written.id not in nodes}
    wiring = wire(parsed.edges, nodes, broken, faults)
    ordered = _check_graph(nodes, wiring, is_whole=bool(nodes) and not broken, faults=faults)
    if depth == 0:
        _check_inputs_are_json(nodes.values(), faults)
    return None if faults else _flow(parsed, nodes.values(), ordered, wiring.edges)


def refusal(faults: Iterable[Violation]) -> InvalidFlow:
    """The error of a document with faults."""
    every = tuple(faults)
    sizes = accumulate(len(str(fault)) for fault in every)
    sent = tuple(fault for fault, size in zip(every, sizes, strict=True) if size <= REFUSAL_CHARS_MAX) or every[:1]
    count = "a fault" if len(every) == 1 else f"{len(every)} faults"
    more = "" if len(sent) == len(every) else f" (and more: ValidateFlow lists all {len(every)})"
    return InvalidFlow(f"the flow has {count}: {every[0]}{more}", violations=sent)


def _node(written: NodeDocument, faults: Faults, depth: int) -> Node | None:
    spec = NODE_TYPES.get(written.type)
    if spec is None:
        message, hint = f"unknown node type {quoted(written.type)}", suggestion(written.type, NODE_TYPES, "node types")
        faults.add(message, node_id=written.id, field="type", suggestion=hint)
        return None
    model = _one_of(spec.params, written, faults) if isinstance(spec.params, OneOf) else spec.params
    if model is None:
        return None
    params = checked(model, written.params, faults, node_id=written.id, place="params")
    if params is None:
        return None
    if isinstance(spec, BodySpec):
        return _with_body(written, spec, params, faults, depth)
    if isinstance(spec, ToolUserSpec):
        return _with_tools(written, spec, params, faults, depth)
    return Node(id=written.id, type=written.type, params=params, ports=spec.ports(params))


def _with_body(written: NodeDocument, spec: BodySpec[Any], params: Any, faults: Faults, depth: int) -> Node | None:
    if depth >= BODIES_MAX:
        faults.add(f"more than {BODIES_MAX} bodies inside one another", node_id=written.id, field="params.body")
        return None
    inner = Faults()
    parsed = parse_body(params.body, inner)
    body = _assembled(parsed, inner, depth=depth + 1)
    for fault in inner.told():
        place = f"params.body.{fault.field}" if not fault.node_id else fault.field
        node_id = f"{written.id}/{fault.node_id}" if fault.node_id else written.id
        faults.add(fault.message, node_id=node_id, field=place, suggestion=fault.suggestion)
    if body is None:
        return None
    wrong = spec.faults(params, body)
    for field, message in wrong:
        faults.add(message, node_id=written.id, field=f"params.{field}")
    return None if wrong else Node(id=written.id, type=written.type, params=params, ports=spec.ports(params, body), body=body)


def _with_tools(written: NodeDocument, spec: ToolUserSpec[Any], params: Any, faults: Faults, depth: int) -> Node | None:
    declared = spec.tools(params)
    tools = [tool for each in declared if (tool := _tool(written.id, each, spec, faults, depth)) is not None]
    if len(tools) < len(declared):
        return None
    wrong = spec.faults(params, tools)
    for field, message in wrong:
        faults.add(message, node_id=written.id, field=f"params.{field}")
    ports = spec.ports(params, tools)
    return None if wrong else Node(id=written.id, type=written.type, params=params, ports=ports, tools=tuple(tools))


def _tool(user: str, declared: ToolDeclaration, spec: ToolUserSpec[Any], faults: Faults, depth: int) -> Node | None:
    if declared.type not in spec.tool_types or declared.type not in NODE_TYPES:
        known = spec.tool_types & NODE_TYPES.keys()
        message, hint = f"a node of type {quoted(declared.type)} is no tool", suggestion(declared.type, known, "tools")
        faults.add(message, node_id=user, field=f"{declared.place}.type", suggestion=hint)
        return None
    inner = Faults()
    node = _node(NodeDocument(id=declared.name, type=declared.type, params=dict(declared.params)), inner, depth)
    for fault in inner.told():
        place = f"{declared.place}.{fault.field}"
        faults.add(fault.message, node_id=user, field=place, suggestion=fault.suggestion)
    return node


def _check_inputs_are_json(nodes: Iterable[Node], faults: Faults) -> None:
    for node in nodes:
        if node.type == "input" and PortType(node.params.type) not in GIVEN_TYPES:
            message, hint = f"a run cannot be given {node.params.type}", "only the input of a body has this type; use json"
            faults.add(message, node_id=node.id, field="params.type", suggestion=hint)


def _one_of(choice: OneOf, written: NodeDocument, faults: Faults) -> type[NodeParams] | None:
    key = written.params.get(choice.key)
    if isinstance(key, str) and key in choice.models:
        return choice.models[key]
    if choice.key in written.params:
        message, hint = f"unknown {choice.key} {quoted(key)}", suggestion(str(key), choice.models, "known")
    else:
        message, hint = "is required", f"one of: {', '.join(choice.models)}"
    faults.add(message, node_id=written.id, field=f"params.{choice.key}", suggestion=hint)
    return None


def _check_graph(nodes: Mapping[str, Node], wiring: Wiring, *, is_whole: bool, faults: Faults) -> tuple[Node, ...]:
    """The nodes in an order in which they can run. `is_whole` is false when nodes are missing because of their faults."""
    _check_inputs(nodes, wiring, faults)
    if is_whole and not any(node.type == "output" for node in nodes.values()):
        faults.add("no node of type output", field="nodes", suggestion="add one: a run returns its value")
    for kind in ("input", "output"):
        _check_names([node for node in nodes.values() if node.type == kind], kind, faults)
    return _ordered(nodes, wiring.edges, faults)


def _check_inputs(nodes: Mapping[str, Node], wiring: Wiring, faults: Faults) -> None:
    connected = {(edge.target, edge.target_port) for edge in wiring.edges}
    for node in nodes.values():
        for port in node.ports.inputs:
            if not port.optional and (node.id, port.name) not in connected and node.id not in wiring.unsettled:
                message, hint = (
                    f"the input {port.name!r} is not connected",
                    f'add an edge with the target "{node.id}.{port.name}"',
                )
                faults.add(message, node_id=node.id, field=f"inputs.{port.name}", suggestion=hint)


def _check_names(nodes: Sequence[Node], kind: str, faults: Faults) -> None:
    """Of the names under which runs give or get values, each is one node's."""
    counts = Counter(_run_name(node) for node in nodes)
    for node in nodes:
        name = _run_name(node)
        if counts[name] > 1:
            message, hint = f"another {kind} node has the name {name!r} too", f"give each {kind} node a name of its own"
            faults.add(message, node_id=node.id, field="params.name", suggestion=hint)


def _run_name(node: Node) -> str:
    params: InputParams | OutputParams = node.params
    return params.name or node.id


def _ordered(nodes: Mapping[str, Node], edges: Iterable[Edge], faults: Faults) -> tuple[Node, ...]:
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(nodes, ()))
    for edge in edges:
        sorter.add(edge.target, edge.source)
    try:
        return tuple(nodes[node_id] for node_id in sorter.static_order())
    except CycleError as error:
        cycle: list[str] = error.args[1]
        path = " -> ".join(cycle if len(cycle) <= CYCLE_SHOWN_MAX else [*cycle[:CYCLE_SHOWN_MAX], "...", cycle[-1]])
        faults.add(f"the edges form a cycle: {path}", node_id=cycle[0], field="edges", suggestion="remove one of these edges")
        return ()


def _flow(parsed: Parsed, written: Collection[Node], ordered: tuple[Node, ...], edges: tuple[Edge, ...]) -> Flow:
    """Inputs and outputs are in the order of the document, nodes in one in which they can run."""
    return Flow(
        content_hash=parsed.content_hash,
        description=parsed.description,
        nodes=ordered,
        edges=edges,
        inputs=tuple(declared(node.id, node.params) for node in written if node.type == "input"),
        outputs=tuple(_run_name(node) for node in written if node.type == "output"),
        output_types=_output_types(written, edges),
        bounds=Bounds(**parsed.budget.model_dump()),
        overrides=parsed.overrides,
        origin=parsed.origin,
    )


def _output_types(written: Iterable[Node], edges: Iterable[Edge]) -> dict[str, PortType]:
    nodes = {node.id: node for node in written}
    given = {(node.id, port.name): port.type for node in nodes.values() for port in node.ports.outputs}
    return {
        _run_name(nodes[edge.target]): given[edge.source, edge.source_port]
        for edge in edges
        if nodes[edge.target].type == "output"
    }
