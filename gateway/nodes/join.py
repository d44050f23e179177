"""join: the value of whichever branch of a switch ran."""

from typing import Annotated, Final

from pydantic import Field

from gateway.backends import Backends
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.nodes.typed import ValueType
from gateway.values import ACCEPTED_BY, PortType


class JoinParams(NodeParams):
    """Parameters of a join node."""

    type: ValueType = Field(default="text", description="The type of the value.")
    inputs: list[Annotated[str, Field(pattern=NAME_PATTERN)]] = Field(
        min_length=1,
        max_length=32,
        description="The input ports, one a branch. Where several have a value, the first of them is taken.",
    )


def _ports(params: JoinParams) -> Ports:
    kind = PortType(params.type)
    names = tuple(dict.fromkeys(params.inputs))
    return Ports(
        inputs=tuple(InputPort(name=name, accepts=ACCEPTED_BY[kind], may_be_absent=True) for name in names),
        outputs=(OutputPort(name="value", type=kind), OutputPort(name="branch", type=PortType.TEXT)),
    )


def _work(params: JoinParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    def take(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        return next({"value": inputs[name], "branch": name} for name in params.inputs if name in inputs)

    return Pure(take)


JOIN: Final = NodeSpec(summary="The value of whichever branch ran.", params=JoinParams, ports=_ports, work=_work)
