"""prompt: a template filled with what its variables are connected to."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.nodes.template import Template, checked
from gateway.values import ANYTHING, PortType, as_text


class PromptParams(NodeParams):
    """Parameters of a prompt node."""

    template: Annotated[str, AfterValidator(checked)] = Field(
        min_length=1,
        description="The text. {name} is an input port of the node; {{ and }} are braces. Passages are numbered from [1].",
    )


def _ports(params: PromptParams) -> Ports:
    variables = Template(params.template).variables
    return Ports(
        inputs=tuple(InputPort(name=name, accepts=ANYTHING, variable=True) for name in variables),
        outputs=(OutputPort(name="text", type=PortType.TEXT),),
    )


def _work(params: PromptParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    template = Template(params.template)

    def fill(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        return {"text": template.render({name: as_text(value) for name, value in inputs.items()})}

    return Pure(fill)


PROMPT: Final = NodeSpec(summary="A template filled with the node's inputs.", params=PromptParams, ports=_ports, work=_work)
