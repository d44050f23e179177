"""What an operation of a transform node is."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from pydantic import Field

from gateway.flow_model import InputPort
from gateway.nodes.spec import NodeParams
from gateway.values import ACCEPTED_BY, PortType
from penstock.errors import FailedPrecondition

LIST_ITEMS_MAX: Final = 10_000
VALUE: Final = "value"
"""The input port of an operation that has one."""


class Operation(NodeParams):
    """Parameters of one operation and what it does.

    Most take one value and say so by `accepts`, `gives` and `apply`. One whose ports depend on its parameters, or that has
    several, says so by the other three.
    """

    accepts: ClassVar[PortType]
    gives: ClassVar[PortType]

    def apply(self, value: Any) -> Any:
        """Takes and gives values of the types that are declared."""
        raise NotImplementedError

    def input_ports(self) -> tuple[InputPort, ...]:
        return (port(VALUE, self.accepts),)

    def output_type(self) -> PortType:
        return self.gives

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        """The function of the values at the input ports. What takes time to prepare is prepared here, once a flow."""
        apply = self.apply
        return lambda inputs: apply(inputs[VALUE])


class OrDefault(Operation):
    """An operation that the value may not allow. It then gives `default`, or fails where there is none."""

    default: Any = Field(default=None, description="What to give when it cannot be done. Left out: the run fails.")

    def _otherwise(self, problem: str) -> Any:
        if self.default is None:
            raise FailedPrecondition(f"{problem}, and the node has no default")
        return self.default


def port(name: str, kind: PortType) -> InputPort:
    """An input port that takes what a port of this type does."""
    return InputPort(name=name, accepts=ACCEPTED_BY[kind])
