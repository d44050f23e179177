"""A flow that has been validated: nodes in an order in which they can run, edges between ports, inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.values import PortType


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPort:
    """Where a node takes a value. `variable` marks a prompt's, which are inferred by name and by convention.

    A node is skipped where one of its inputs comes from a branch that was not taken, unless that input `may_be_absent`; one
    that is `optional` need not be connected.
    """

    name: str
    accepts: frozenset[PortType]
    variable: bool = False
    optional: bool = False
    may_be_absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPort:
    """Where a node gives a value. An edge that names no output of a node that has several is from the one that `is_main`."""

    name: str
    type: PortType
    is_main: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All ports of a node. An input port takes one edge, and must have it unless it is optional."""

    inputs: tuple[InputPort, ...] = ()
    outputs: tuple[OutputPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. `params` is the frozen model of its type (see nodes.NODE_TYPES); `body` the flow inside a map or a loop.

    `tools` are the nodes that an agent may use, their ids the tools' names.
    """

    id: str
    type: str
    params: Any
    ports: Ports
    body: "Flow | None" = None
    tools: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One edge, its ports known."""

    source: str
    source_port: str
    target: str
    target_port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowInput:
    """What a run takes under `name`. Not required: `default` stands in for it."""

    name: str
    type: PortType
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one run may take. None: the gateway's own bound."""

    model_calls: int | None = None
    tokens: int | None = None
    retrievals: int | None = None
    wall_s: float | None = None


UNBOUNDED: Final = Bounds()

Overridable = Literal["none", "sampling", "all"]
"""What a caller may set for one run: nothing, how generate nodes sample, or any parameter that is not protected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A valid flow. `content_hash` is the SHA-256 of its canonical document, in hexadecimal: its version.

    `output_types` are the types of what its output nodes are given, by the outputs' names. `origin` says what it was imported
    from (see langflow/).
    """

    content_hash: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[FlowInput, ...]
    outputs: tuple[str, ...]
    output_types: Mapping[str, PortType] = field(default_factory=dict)
    description: str = ""
    bounds: Bounds = Bounds()
    overrides: Overridable = "sampling"
    origin: Mapping[str, Any] | None = None
