"""A flow that has been validated: nodes in an order in which they can run, edges between ports, inputs and outputs."""

from dataclasses import dataclass
from typing import Any

from gateway.values import PortType


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPort:
    """Where a node takes a value. `variable` marks a prompt's, which are inferred by name and by convention."""

    name: str
    accepts: frozenset[PortType]
    variable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPort:
    """Where a node gives a value."""

    name: str
    type: PortType


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All ports of a node. Every input port must be connected, and by one edge."""

    inputs: tuple[InputPort, ...] = ()
    outputs: tuple[OutputPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. `params` is the frozen model of its type (see nodes.NODE_TYPES)."""

    id: str
    type: str
    params: Any
    ports: Ports


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
class Flow:
    """A valid flow. `content_hash` is the SHA-256 of its canonical document, in hexadecimal: its version."""

    content_hash: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[FlowInput, ...]
    outputs: tuple[str, ...]
    description: str = ""
