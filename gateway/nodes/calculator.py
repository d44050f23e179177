"""calculator: what an arithmetic expression in a text comes to. For agents: models write sums better than they compute them."""

from typing import Final

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.arithmetic import computed
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.values import ACCEPTED_BY, PortType
from penstock.errors import FailedPrecondition

_PORTS: Final = Ports(
    inputs=(InputPort(name="expression", accepts=ACCEPTED_BY[PortType.TEXT]),),
    outputs=(OutputPort(name="result", type=PortType.NUMBER),),
)


class CalculatorParams(NodeParams):
    """A calculator has no parameters."""


def _ports(params: CalculatorParams) -> Ports:  # noqa: ARG001  # They are always the same.
    return _PORTS


def _work(params: CalculatorParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    def compute(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        expression: str = inputs["expression"]
        try:
            return {"result": computed(expression)}
        except ValueError as error:
            raise FailedPrecondition(f"{expression[:80]!r} cannot be computed: {error}") from error

    return Pure(compute)


CALCULATOR: Final = NodeSpec(
    summary="What an arithmetic expression in a text comes to: + - * / // % ** and functions such as sqrt, round, log, min.",
    params=CalculatorParams,
    ports=_ports,
    work=_work,
)
