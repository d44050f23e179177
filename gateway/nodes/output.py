"""output: a value that the run returns."""

from typing import Final

from pydantic import Field

from gateway.backends import Backends
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import InputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.values import ANYTHING


class OutputParams(NodeParams):
    """Parameters of an output node."""

    name: str | None = Field(
        default=None, pattern=NAME_PATTERN, description="The key under which a run returns the value. Left out: the node's id."
    )


def _ports(params: OutputParams) -> Ports:  # noqa: ARG001  # They are always the same.
    return Ports(inputs=(InputPort(name="value", accepts=ANYTHING),))


def _work(params: OutputParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    name = params.name or node_id

    def take(inputs: Inputs, run: Run) -> Outputs:
        run.outputs[name] = inputs["value"]
        return {}

    return Pure(take)


OUTPUT: Final = NodeSpec(summary="A value that the run returns.", params=OutputParams, ports=_ports, work=_work)
