"""switch: sends a value along one of several branches. What hangs on the others alone is not run."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from gateway.backends import Backends
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.expressions import Expression
from gateway.expressions import checked as expression
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.nodes.typed import ValueType
from gateway.values import ACCEPTED_BY, ANYTHING, PortType
from penstock.errors import FailedPrecondition

CASES_MAX: Final = 32
VALUE: Final = "value"


class Case(NodeParams):
    """A branch and when it is taken."""

    name: str = Field(pattern=NAME_PATTERN, description="The output port of the branch.")
    when: Annotated[str, AfterValidator(expression)] = Field(
        description='A CEL expression that is true or false, such as value.contains("order"). value is what is sent on; any '
        "other name is an input port of the node."
    )


class SwitchParams(NodeParams):
    """Parameters of a switch node."""

    type: ValueType = Field(default="text", description="The type of the value that is sent on.")
    cases: list[Case] = Field(min_length=1, max_length=CASES_MAX, description="The branches; the first that holds is taken.")
    otherwise: str = Field(default="otherwise", pattern=NAME_PATTERN, description="The output port where none of them holds.")

    @model_validator(mode="after")
    def _distinct(self) -> "SwitchParams":
        names = [case.name for case in self.cases] + [self.otherwise]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            message = f"two branches have the name {twice!r}"
            raise ValueError(message)
        return self


def _ports(params: SwitchParams) -> Ports:
    variables = {name for case in params.cases for name in Expression(case.when).variables} - {VALUE}
    kind = PortType(params.type)
    return Ports(
        inputs=(
            InputPort(name=VALUE, accepts=ACCEPTED_BY[kind]),
            *(InputPort(name=name, accepts=ANYTHING, variable=True) for name in sorted(variables)),
        ),
        outputs=tuple(OutputPort(name=name, type=kind) for name in (*(case.name for case in params.cases), params.otherwise)),
    )


def _work(params: SwitchParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It calls nobody.
    cases = [(case.name, Expression(case.when)) for case in params.cases]

    def choose(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        for name, when in cases:
            holds = when.evaluate(inputs)
            if not isinstance(holds, bool):
                raise FailedPrecondition(f"the case {name!r} must be true or false; its expression gives {holds!r:.80}")
            if holds:
                return {name: inputs[VALUE]}
        return {params.otherwise: inputs[VALUE]}

    return Pure(choose)


SWITCH: Final = NodeSpec(
    summary="Sends a value along the first branch whose condition holds.", params=SwitchParams, ports=_ports, work=_work
)
