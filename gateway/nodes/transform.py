"""transform: one pure operation on a value (operations.py has them all)."""

from typing import Final

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.operations import OPERATIONS, Operation
from gateway.nodes.spec import Inputs, NodeSpec, OneOf, Outputs, Pure, Work
from gateway.values import ACCEPTED_BY


def _ports(params: Operation) -> Ports:
    return Ports(
        inputs=(InputPort(name="value", accepts=ACCEPTED_BY[params.accepts]),),
        outputs=(OutputPort(name="result", type=params.gives),),
    )


def _work(params: Operation, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    apply = params.apply

    def transform(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        return {"result": apply(inputs["value"])}

    return Pure(transform)


TRANSFORM: Final = NodeSpec(
    summary="One pure operation on a value.", params=OneOf(key="operation", models=OPERATIONS), ports=_ports, work=_work
)
