"""prompt: a template filled with what its variables are connected to."""

from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.nodes.template import SYNTAX_DESCRIPTION, Syntax, Template
from gateway.values import ANYTHING, PortType, as_text


class PromptParams(NodeParams):
    """Parameters of a prompt node."""

    syntax: Syntax = Field(default="f-string", description=SYNTAX_DESCRIPTION)
    template: str = Field(
        min_length=1, description="The text. Its variables are input ports of the node. Passages are numbered from [1]."
    )

    @field_validator("template")
    @classmethod
    def _is_template(cls, text: str, info: ValidationInfo) -> str:
        if "syntax" in info.data:  # Else the syntax is at fault.
            Template(text, info.data["syntax"])
        return text


def _ports(params: PromptParams) -> Ports:
    variables = Template(params.template, params.syntax).variables
    return Ports(
        inputs=tuple(InputPort(name=name, accepts=ANYTHING, variable=True) for name in variables),
        outputs=(OutputPort(name="text", type=PortType.TEXT),),
    )


def _work(params: PromptParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    template = Template(params.template, params.syntax)

    def fill(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        return {"text": template.render({name: as_text(value) for name, value in inputs.items()})}

    return Pure(fill)


PROMPT: Final = NodeSpec(summary="A template filled with the node's inputs.", params=PromptParams, ports=_ports, work=_work)
