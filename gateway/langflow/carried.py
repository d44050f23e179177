"""What travels along the links of an export, as it is known while the flow is converted."""

from dataclasses import dataclass
from typing import Final, Literal

from gateway.langflow.export import Component
from gateway.values import PortType

Shape = Literal["one", "rows", "any"]

TEXT_NAMES: Final = frozenset({"text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A value that a port of ours gives ("node.port").

    LangFlow's Data has keys; a text, or the texts of a list, are the value of any of `names`. `shape` is of JSON: one object, a
    list of them, or what cannot be known before the run.
    """

    port: str
    type: PortType
    names: frozenset[str] = TEXT_NAMES
    shape: Shape = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that another component asks: nothing that travels here, but what that one's node is told.

    `fields` are the component's that callers may set, which become those of the node that asks.
    """

    component: Component
    fields: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsTool:
    """A component that an agent may call."""

    component: Component


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What has no counterpart because a service of ours does it: embeddings."""


@dataclass(frozen=True, slots=True)
class Broken:
    """What a component would give that has a fault, so that it is told once."""


Given = Carried | Model | AsTool | Absorbed | Broken
