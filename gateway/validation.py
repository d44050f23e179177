"""From a flow document to a flow, or to everything that is wrong with it. Pure: nothing is called and nothing is kept.

    validate -> parse (document.py) -> _node ... -> wire (wiring.py) -> _check_graph

Each step adds faults to one list and goes on with what is sound, so that one attempt tells a writer all of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from typing import Final

from pydantic import ValidationError

from gateway.document import NodeDocument, Parsed, parse
from gateway.faults import quoted, suggestion, violations_of
from gateway.flow_model import Edge, Flow, Node
from gateway.nodes import NODE_TYPES
from gateway.nodes.input import InputParams, declared
from gateway.nodes.output import OutputParams
from gateway.nodes.spec import NodeParams, OneOf
from gateway.wiring import Wiring, wire
from penstock.errors import InvalidFlow, Violation

# A refusal travels in the trailers of a call, which hold 8 KiB with all their encoding. ValidateFlow lists everything.
REFUSAL_CHARS_MAX: Final = 4000


def validate(document: str | bytes) -> Flow:
    """The flow that `document` says. Raises InvalidFlow with as many faults as REFUSAL_CHARS_MAX leaves room for."""
    flow, faults = examine(document)
    if flow is None:
        raise refusal(faults)
    return flow


def examine(document: str | bytes) -> tuple[Flow | None, tuple[Violation, ...]]:
    """The flow, or every fault of the document."""
    faults: list[Violation] = []
    parsed = parse(document, faults)
    if parsed is None:
        return None, tuple(faults)
    nodes: dict[str, Node] = {}
    for written in parsed.nodes:
        node = _node(written, faults)
        if node is not None:
            nodes[node.id] = node
    broken = parsed.mentioned | {written.id for written in parsed.nodes if written.id not in nodes}
    wiring = wire(parsed.edges, nodes, broken, faults)
    ordered = _check_graph(nodes, wiring, is_whole=bool(nodes) and not broken, faults=faults)
    return (None if faults else _flow(parsed, nodes.values(), ordered, wiring.edges)), tuple(faults)


def refusal(faults: Iterable[Violation]) -> InvalidFlow:
    """The error of a document with faults."""
    every = tuple(faults)
    sizes = accumulate(len(str(fault)) for fault in every)
    sent = tuple(fault for fault, size in zip(every, sizes, strict=True) if size <= REFUSAL_CHARS_MAX) or every[:1]
    count = "a fault" if len(every) == 1 else f"{len(every)} faults"
    more = "" if len(sent) == len(every) else f" (and more: ValidateFlow lists all {len(every)})"
    return InvalidFlow(f"the flow has {count}: {every[0]}{more}", violations=sent)


def _node(written: NodeDocument, faults: list[Violation]) -> Node | None:
    spec = NODE_TYPES.get(written.type)
    if spec is None:
        message, hint = f"unknown node type {quoted(written.type)}", suggestion(written.type, NODE_TYPES, "node types")
        faults.append(Violation(node_id=written.id, field="type", message=message, suggestion=hint))
        return None
    model = _one_of(spec.params, written, faults) if isinstance(spec.params, OneOf) else spec.params
    if model is None:
        return None
    try:
        params = model.model_validate(written.params)
    except ValidationError as error:
        faults += violations_of(error, model, node_id=written.id, place="params")
        return None
    return Node(id=written.id, type=written.type, params=params, ports=spec.ports(params))


def _one_of(choice: OneOf, written: NodeDocument, faults: list[Violation]) -> type[NodeParams] | None:
    key = written.params.get(choice.key)
    if isinstance(key, str) and key in choice.models:
        return choice.models[key]
    if choice.key in written.params:
        message, hint = f"unknown {choice.key} {quoted(key)}", suggestion(str(key), choice.models, "known")
    else:
        message, hint = "is required", f"one of: {', '.join(choice.models)}"
    faults.append(Violation(node_id=written.id, field=f"params.{choice.key}", message=message, suggestion=hint))
    return None


def _check_graph(nodes: Mapping[str, Node], wiring: Wiring, *, is_whole: bool, faults: list[Violation]) -> tuple[Node, ...]:
    """The nodes in an order in which they can run. `is_whole` is false when nodes are missing because of their faults."""
    faults += _missing_inputs(nodes, wiring)
    if is_whole and not any(node.type == "output" for node in nodes.values()):
        faults.append(Violation(field="nodes", message="no node of type output", suggestion="add one: a run returns its value"))
    faults += _taken_names(nodes.values(), "input") + _taken_names(nodes.values(), "output")
    return _ordered(nodes, wiring.edges, faults)


def _missing_inputs(nodes: Mapping[str, Node], wiring: Wiring) -> list[Violation]:
    connected = {(edge.target, edge.target_port) for edge in wiring.edges}
    return [
        Violation(
            node_id=node.id,
            field=f"inputs.{port.name}",
            message=f"the input {port.name!r} is not connected",
            suggestion=f'add an edge with the target "{node.id}.{port.name}"',
        )
        for node in nodes.values()
        for port in node.ports.inputs
        if (node.id, port.name) not in connected and node.id not in wiring.unsettled
    ]


def _taken_names(nodes: Iterable[Node], kind: str) -> list[Violation]:
    named = [(node, _run_name(node)) for node in nodes if node.type == kind]
    counts = Counter(name for _, name in named)
    return [
        Violation(
            node_id=node.id,
            field="params.name",
            message=f"another {kind} node has the name {name!r} too",
            suggestion=f"give each {kind} node a name of its own",
        )
        for node, name in named
        if counts[name] > 1
    ]


def _run_name(node: Node) -> str:
    params: InputParams | OutputParams = node.params
    return params.name or node.id


def _ordered(nodes: Mapping[str, Node], edges: Iterable[Edge], faults: list[Violation]) -> tuple[Node, ...]:
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(nodes, ()))
    for edge in edges:
        sorter.add(edge.target, edge.source)
    try:
        return tuple(nodes[node_id] for node_id in sorter.static_order())
    except CycleError as error:
        cycle: list[str] = error.args[1]
        message = f"the edges form a cycle: {' -> '.join(cycle)}"
        faults.append(Violation(node_id=cycle[0], field="edges", message=message, suggestion="remove one of these edges"))
        return ()


def _flow(parsed: Parsed, written: Iterable[Node], ordered: tuple[Node, ...], edges: tuple[Edge, ...]) -> Flow:
    """Inputs and outputs are in the order of the document, nodes in one in which they can run."""
    return Flow(
        content_hash=parsed.content_hash,
        description=parsed.description,
        nodes=ordered,
        edges=edges,
        inputs=tuple(declared(node.id, node.params) for node in written if node.type == "input"),
        outputs=tuple(_run_name(node) for node in written if node.type == "output"),
    )
