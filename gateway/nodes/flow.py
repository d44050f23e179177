"""flow: another flow of the gateway, run as a part of this one and on its budget."""

from typing import Annotated, Any, Final

from pydantic import Field

from gateway.backends import Backends
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.nodes.typed import ValueType, of_type
from gateway.values import ACCEPTED_BY, PortType, as_json
from penstock.errors import FailedPrecondition, FlowMisconfigured

DEPTH_MAX: Final = 8
"""Most flows inside one another. A flow that runs itself, directly or not, ends here."""

PortName = Annotated[str, Field(pattern=NAME_PATTERN)]


class FlowParams(NodeParams):
    """Parameters of a flow node. The types are declared because the other flow may be replaced at any time."""

    protected = frozenset({"flow"})

    flow: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Name of the flow, without the leading flows/.")
    inputs: dict[PortName, ValueType] = Field(
        default={}, max_length=32, description="The inputs that it is given and their types: the node's input ports."
    )
    outputs: dict[PortName, ValueType] = Field(
        min_length=1, max_length=32, description="The outputs that are used and their types: the node's output ports."
    )


def _ports(params: FlowParams) -> Ports:
    return Ports(
        inputs=tuple(InputPort(name=name, accepts=ACCEPTED_BY[PortType(kind)]) for name, kind in params.inputs.items()),
        outputs=tuple(OutputPort(name=name, type=PortType(kind)) for name, kind in params.outputs.items()),
    )


def _work(params: FlowParams, node_id: str, backends: Backends) -> Work:
    kinds = {name: PortType(kind) for name, kind in params.outputs.items()}

    async def call(inputs: Inputs, run: Run) -> Outputs:
        if run.depth >= DEPTH_MAX:
            raise FailedPrecondition(f"more than {DEPTH_MAX} flows run inside one another; does one of them run itself?")
        given = {name: as_json(value) for name, value in inputs.items()}
        outputs = await backends.subflows.run(params.flow, given, run.child(node_id, given))
        return {name: _typed(params.flow, name, outputs, kind) for name, kind in kinds.items() if name in outputs}

    return Effect(call)


def _typed(flow: str, name: str, outputs: Outputs, kind: PortType) -> Any:
    value = outputs[name]
    if kind is PortType.JSON:
        value = as_json(value)
    if not of_type(value, kind):
        raise FlowMisconfigured(
            f"the output {name!r} of the flow {flow!r} is not of the type {kind.value}", metadata={"flow": flow}
        )
    return value


FLOW: Final = NodeSpec(summary="Another flow, run as a part of this one.", params=FlowParams, ports=_ports, work=_work)
