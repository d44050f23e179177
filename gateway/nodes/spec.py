"""What a node type is: its parameters, its ports, and the work it does."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import Flow, Node, Ports

Inputs = Mapping[str, Any]
Outputs = Mapping[str, Any]
"""Values by the names of a node's ports. Ports are typed and edges checked, so a node may trust what it is given."""


class NodeParams(BaseModel):
    """Base of every type's parameters: nothing unknown, nothing coerced, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    protected: ClassVar[frozenset[str]] = frozenset()
    """Parameters that no caller may override, because they say what the node connects to or which code it runs."""


@dataclass(frozen=True, slots=True)
class Pure:
    """Work that neither waits nor calls anyone: it is run at once, on the spot."""

    apply: Callable[[Inputs, Run], Outputs]


@dataclass(frozen=True, slots=True)
class Effect:
    """Work that waits for another service. Several may be under way at once; cancelling one stops its call."""

    apply: Callable[[Inputs, Run], Awaitable[Outputs]]


Work = Pure | Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """Parameters whose shape depends on one of them: `key` is its name, `models` the model for each of its values."""

    key: str
    models: Mapping[str, type[NodeParams]]


P = TypeVar("P", bound=NodeParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec(Generic[P]):
    """A node type. `work` binds a node's parameters, id and backends into what the scheduler calls."""

    summary: str
    params: type[P] | OneOf
    ports: Callable[[P], Ports]
    work: Callable[[P, str, Backends], Work]


Body = Callable[[Run], Awaitable[Mapping[str, Any]]]
"""Runs the flow inside a node: what its inputs are given, and the `child` run; what its outputs got. An output that only a
branch not taken would have fed is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySpec(Generic[P]):
    """A node type with a flow inside it, which is written in the parameter `body`.

    `faults` says what the node has against the flow: pairs of a field and what is wrong with it.
    """

    summary: str
    params: type[P]
    faults: Callable[[P, Flow], Sequence[tuple[str, str]]]
    ports: Callable[[P, Flow], Ports]
    work: Callable[[P, str, Flow, Body], Work]


Use = Callable[[Inputs, Run], Awaitable[Outputs]]
"""Runs a node as a tool: what its inputs are given, and the `child` run of the node that uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDeclaration:
    """A node that a parameter declares as a tool. `place` is the field where it stands."""

    name: str
    type: str
    params: Mapping[str, Any]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUserSpec(Generic[P]):
    """A node type that uses other nodes as its tools.

    `tool_types` are the types of nodes that it may use. `faults` says what it has against the tools.
    """

    summary: str
    params: type[P]
    tool_types: frozenset[str]
    tools: Callable[[P], Sequence[ToolDeclaration]]
    faults: Callable[[P, Sequence[Node]], Sequence[tuple[str, str]]]
    ports: Callable[[P, Sequence[Node]], Ports]
    work: Callable[[P, str, Sequence[tuple[Node, Use]], Backends], Work]


Spec = NodeSpec[Any] | BodySpec[Any] | ToolUserSpec[Any]
