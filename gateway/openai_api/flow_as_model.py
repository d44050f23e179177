"""What of a flow matters to a caller who takes it for a model: where the question goes, and where the answer comes from."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.flow_model import Edge, Flow, Node, Overridable
from gateway.values import PortType

_PASSING: Final = frozenset({"join", "switch"})
"""Types of nodes that give on a value as it is."""

_ASKING: Final = frozenset({"agent", "flow"})
"""Types of nodes, beside generate, that ask models, and nobody can tell from outside how often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowAsModel:
    """`question` is the input that the last user message goes to, empty where the flow takes no text. `answers` are the
    outputs, the best one first: text that a generate node feeds, then the others.

    `streamed` are the generate nodes whose tokens are the first answer's text. `takes_tools`: one of its generate nodes may
    answer with calls of the caller's tools. `shapes_one`: what a caller says of the answer's form holds for one answer of a
    model and no more.
    """

    content_hash: str
    question: str
    answers: tuple[str, ...]
    streamed: frozenset[str]
    takes_tools: bool
    shapes_one: bool
    overrides: Overridable


def as_model(flow: Flow) -> FlowAsModel:
    """How a flow is talked to."""
    feeding = _feeding(flow)
    spoken = [name for name in flow.outputs if feeding.get(name) and flow.output_types.get(name) is PortType.TEXT]
    asking = list(_asking(flow))
    return FlowAsModel(
        content_hash=flow.content_hash,
        question=question([(each.name, each.type.value, each.required) for each in flow.inputs]),
        answers=(*spoken, *(name for name in flow.outputs if name not in spoken)),
        streamed=feeding[spoken[0]] if spoken else frozenset(),
        takes_tools=any(getattr(node.params, "tools", "none") == "caller" for node in asking if node.type == "generate"),
        shapes_one=[node.type for node in asking if _takes_form(node)] == ["generate"],
        overrides=flow.overrides,
    )


def question(inputs: list[tuple[str, str, bool]]) -> str:
    """Of a flow's inputs (name, type, required) the one for the question: the first required text, else the first text."""
    texts = [(name, required) for name, kind, required in inputs if kind == PortType.TEXT.value]
    return next((name for name, required in texts if required), texts[0][0] if texts else "")


def _asking(flow: Flow) -> Iterator[Node]:
    for node in flow.nodes:
        if node.type == "generate" or node.type in _ASKING:
            yield node
        if node.body is not None:
            yield from _asking(node.body)


def _takes_form(node: Node) -> bool:
    """Whether a form that a caller asks for may be that of this node's answer: not where it has one of its own."""
    own = getattr(node.params, "structured_output", None)
    return node.type in _ASKING or (own is None and getattr(node.params, "caller_sampling", True))


def _feeding(flow: Flow) -> Mapping[str, frozenset[str]]:
    """The generate nodes whose text reaches each output as it is, by the outputs' names."""
    nodes = {node.id: node for node in flow.nodes}
    arriving: dict[str, list[Edge]] = defaultdict(list)
    for edge in flow.edges:
        arriving[edge.target].append(edge)
    made_by: dict[str, frozenset[str]] = {}
    for node in flow.nodes:  # In an order in which they can run: what feeds a node stands before it.
        if node.type == "output" or _passes_on(node):
            fed = [_sources(nodes[edge.source], edge, made_by) for edge in arriving[node.id] if _carries(node, edge)]
            made_by[node.id] = frozenset().union(*fed)
    return {node.params.name or node.id: made_by[node.id] for node in flow.nodes if node.type == "output"}


def _passes_on(node: Node) -> bool:
    return node.type in _PASSING or (node.type == "history" and getattr(node.params, "operation", "") == "append")


def _carries(node: Node, edge: Edge) -> bool:
    """Whether what comes by this edge is what the node gives on; a switch has other inputs, which it only looks at."""
    return node.type != "switch" or edge.target_port == "value"


def _sources(source: Node, edge: Edge, made_by: Mapping[str, Any]) -> frozenset[str]:
    if source.type in {"generate", "agent"}:
        return frozenset({source.id}) if edge.source_port == "text" else frozenset()
    is_branch = source.type == "join" and edge.source_port == "branch"
    return frozenset() if is_branch else made_by.get(source.id, frozenset())
