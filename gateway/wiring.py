"""From edges as they are written to edges whose ports are known and whose types fit.

An edge may leave its ports out. The source's is then its only output, or its main one. The target's is found per node, in this
order: the input named like the source node; the only one that is left, of those that must be connected before those that need
not be; for a prompt, by convention: passages into a variable called context, documents or passages, a text into question, query
or input. What is still unclear is a fault that lists the ports.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.document import EdgeDocument
from gateway.faults import Faults, listed, suggestion
from gateway.flow_model import Edge, InputPort, Node, OutputPort
from gateway.values import PortType

CONVENTIONS: Final[dict[PortType, tuple[str, ...]]] = {
    PortType.DOCUMENTS: ("context", "documents", "passages"),
    PortType.TEXT: ("question", "query", "input"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """An edge whose source is known. `port` is the target port that was written, empty where it is to be inferred."""

    index: int
    source: Node
    output: OutputPort
    target: Node
    port: str

    @property
    def field(self) -> str:
        return f"edges[{self.index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The edges that could be made. `unsettled` nodes were to get more, so nothing can be said of what they lack."""

    edges: tuple[Edge, ...]
    unsettled: frozenset[str]


def wire(
    edges: Iterable[tuple[int, EdgeDocument]], nodes: Mapping[str, Node], mentioned: frozenset[str], faults: Faults
) -> Wiring:
    """Connects `nodes` by edges with their index in the document. Nodes in `mentioned` have faults that are already told."""
    arriving: dict[str, list[_End]] = defaultdict(list)
    written: dict[str, int] = defaultdict(int)
    for index, edge in edges:
        if faults.full:
            break
        written[edge.target.partition(".")[0]] += 1
        end = _end(index, edge, nodes, mentioned, faults)
        if end is not None:
            arriving[end.target.id].append(end)
    wired: list[Edge] = []
    unsettled: set[str] = set()
    for node_id, count in written.items():
        made = _wire_target(nodes[node_id], arriving[node_id], faults) if node_id in nodes else []
        wired += made
        if len(made) < count:
            unsettled.add(node_id)
    return Wiring(edges=tuple(wired), unsettled=frozenset(unsettled))


def _end(index: int, edge: EdgeDocument, nodes: Mapping[str, Node], mentioned: frozenset[str], faults: Faults) -> _End | None:
    source_id, _, source_port = edge.source.partition(".")
    target_id, _, target_port = edge.target.partition(".")
    for end, node_id in (("source", source_id), ("target", target_id)):
        if node_id not in nodes and node_id not in mentioned:
            hint = suggestion(node_id, mentioned.union(nodes) - {""}, "nodes")
            faults.add(f"there is no node {node_id!r}", field=f"edges[{index}].{end}", suggestion=hint)
    if source_id not in nodes or target_id not in nodes:
        return None
    output = _output(index, nodes[source_id], source_port, faults)
    if output is None:
        return None
    return _End(index=index, source=nodes[source_id], output=output, target=nodes[target_id], port=target_port)


def _output(index: int, source: Node, port: str, faults: Faults) -> OutputPort | None:
    outputs = {output.name: output for output in source.ports.outputs}
    if port in outputs:
        return outputs[port]
    main = [output for output in outputs.values() if output.is_main or len(outputs) == 1]
    if not port and main:
        return main[0]
    if not outputs:
        message, hint = f"a node of type {source.type!r} gives nothing to others", "an edge starts at a node with an output"
    elif port:
        message, hint = f"the node has no output {port!r}", suggestion(port, outputs, "its outputs")
    else:
        message, hint = "the node has several outputs", f"name one of them: {listed(outputs)}"
    faults.add(message, node_id=source.id, field=f"edges[{index}].source", suggestion=hint)
    return None


def _wire_target(target: Node, arriving: list[_End], faults: Faults) -> list[Edge]:
    free = {port.name: port for port in target.ports.inputs}
    bound = [(end, free.pop(end.port)) for end in arriving if end.port and _may_bind(end, free, faults)]
    bound += _infer([end for end in arriving if not end.port], free, faults)
    for end, port in bound:
        _check_types(end, port, faults)
    return [_edge(end, port) for end, port in bound]


def _may_bind(end: _End, free: Mapping[str, InputPort], faults: Faults) -> bool:
    if end.port in free:
        return True
    names = [port.name for port in end.target.ports.inputs]
    if end.port in names:
        message, hint = f"the input {end.port!r} is connected twice", "an input takes one edge; remove the other"
    else:
        message, hint = f"the node has no input {end.port!r}", suggestion(end.port, names, "its inputs")
    faults.add(message, node_id=end.target.id, field=f"{end.field}.target", suggestion=hint)
    return False


def _infer(pending: list[_End], free: dict[str, InputPort], faults: Faults) -> list[tuple[_End, InputPort]]:
    """Takes ports out of `free` for edges that name none."""
    bound: list[tuple[_End, InputPort]] = []
    for choose in (_named_like_source, _only_one_left, _by_convention, _only_one_left):
        choices = {end.index: choose(end, pending, free) for end in pending}
        wanted = Counter(choices.values())
        for end in list(pending):
            name = choices[end.index]
            # A port that two edges would choose is neither's: which of them is meant cannot be known.
            if name and wanted[name] == 1:
                bound.append((end, free.pop(name)))
                pending.remove(end)
    for end in pending:
        _add_unclear(end, free, faults)
    return bound


def _named_like_source(end: _End, pending: list[_End], free: Mapping[str, InputPort]) -> str:  # noqa: ARG001  # One of three.
    return end.source.id if end.source.id in free else ""


def _only_one_left(end: _End, pending: list[_End], free: Mapping[str, InputPort]) -> str:
    if len(pending) > 1:
        return ""
    fitting = [port for port in free.values() if end.output.type in port.accepts]
    # One that does not fit is taken too where it is the only one: the fault is then the type, not the choice.
    candidates = fitting or list(free.values())
    required = [port for port in candidates if not port.optional]
    return (required or candidates)[0].name if len(required or candidates) == 1 else ""


def _by_convention(end: _End, pending: list[_End], free: Mapping[str, InputPort]) -> str:  # noqa: ARG001  # One of three.
    conventional = CONVENTIONS.get(end.output.type, ())
    return next((name for name in conventional if name in free and free[name].variable), "")


def _add_unclear(end: _End, free: Mapping[str, InputPort], faults: Faults) -> None:
    names = [port.name for port in end.target.ports.inputs]
    if not names:
        message, hint = f"a node of type {end.target.type!r} takes nothing from others", "remove the edge"
        if end.target.type == "prompt":
            hint = f"write {{{end.source.id}}} into the template where the value belongs"
    elif len(names) == 1:
        message, hint = f"the input {names[0]!r} is connected twice", "an input takes one edge; remove the other"
    elif not free:
        message = f"every input is connected; there is none left for {end.source.id!r}"
        hint = f"its inputs: {listed(names)}; remove an edge"
    else:
        message = f"it is not clear which input {end.source.id!r} feeds"
        hint = f"write {end.target.id}.PORT with one of: {listed(free)}"
    faults.add(message, node_id=end.target.id, field=f"{end.field}.target", suggestion=hint)


def _check_types(end: _End, port: InputPort, faults: Faults) -> None:
    if end.output.type in port.accepts:
        return
    taken = " or ".join(sorted(kind.value for kind in port.accepts))
    message = f"{end.source.id}.{end.output.name} gives {end.output.type.value}, but {end.target.id}.{port.name} takes {taken}"
    hint = "put a node between them that converts it: a prompt, or a transform"
    faults.add(message, node_id=end.target.id, field=end.field, suggestion=hint)


def _edge(end: _End, port: InputPort) -> Edge:
    return Edge(source=end.source.id, source_port=end.output.name, target=end.target.id, target_port=port.name)
