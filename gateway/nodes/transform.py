"""transform: one pure operation (operations/ has them all)."""

from typing import Final

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import OutputPort, Ports
from gateway.nodes.operations import OPERATIONS, Operation
from gateway.nodes.spec import Inputs, NodeSpec, OneOf, Outputs, Pure, Work


def _ports(params: Operation) -> Ports:
    return Ports(inputs=params.input_ports(), outputs=(OutputPort(name="result", type=params.output_type()),))


def _work(params: Operation, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    apply = params.work()

    def transform(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        return {"result": apply(inputs)}

    return Pure(transform)


TRANSFORM: Final = NodeSpec(
    summary="One pure operation on a value.", params=OneOf(key="operation", models=OPERATIONS), ports=_ports, work=_work
)
