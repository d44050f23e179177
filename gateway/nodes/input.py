"""input: a value that the run is given."""

from typing import Any, Final

from pydantic import Field, model_validator

from gateway.backends import Backends
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import FlowInput, OutputPort, Ports
from gateway.nodes.spec import Inputs, NodeParams, NodeSpec, Outputs, Pure, Work
from gateway.nodes.typed import ValueType
from gateway.values import PortType, is_finite

GIVEN_TYPES: Final = frozenset({PortType.TEXT, PortType.NUMBER, PortType.BOOLEAN, PortType.JSON})
"""What a run can be given: JSON. A body's inputs are given what edges carry."""

VARIABLE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9 _.-]{0,127}$"

_PYTHON_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "text": str,
    "number": (int, float),
    "boolean": bool,
    "json": object,
    "list": tuple,
    "documents": tuple,
    "document_lists": tuple,
}


class InputParams(NodeParams):
    """Parameters of an input node."""

    name: str | None = Field(
        default=None, pattern=NAME_PATTERN, description="The key under which a run gives the value. Left out: the node's id."
    )
    type: ValueType = Field(
        default="text",
        description="The type of the value. A run is given text, number, boolean or json; the body of a map or a loop any.",
    )
    required: bool = Field(default=True, description="Whether a run must give it. An input with a default need not be given.")
    default: Any = Field(default=None, description="The value of a run that gives none, of the input's type.")
    variable: str | None = Field(
        default=None,
        pattern=VARIABLE_PATTERN,
        description="Name of a variable of the gateway, whose value a run that gives none has: of a text that is not required. "
        "The flow holds the name alone. CURRENT_DATE and CURRENT_TIME are what the time is, in UTC.",
    )

    @model_validator(mode="after")
    def _default_fits(self) -> "InputParams":
        if self.default is not None and not fits(self.default, PortType(self.type)):
            message = f"the default is not of the type {self.type!r}"
            raise ValueError(message)
        if not self.required and self.default is None and self.type in {"number", "boolean"}:
            message = f"a {self.type} that is not required needs a default"
            raise ValueError(message)
        if self.variable is not None and (self.type != "text" or self.required or self.default is not None):
            message = "a variable stands in for a text that is not required and has no default"
            raise ValueError(message)
        return self


def fits(value: object, kind: PortType) -> bool:
    """Whether a JSON value is of the type. true is not a number, and what is not finite is not JSON."""
    if kind is PortType.NUMBER and isinstance(value, bool):
        return False
    return isinstance(value, _PYTHON_TYPES[kind.value]) and (kind is PortType.TEXT or is_finite(value))


def declared(node_id: str, params: InputParams) -> FlowInput:
    """What a run is asked for."""
    required = params.required and params.default is None
    default = "" if not required and params.default is None and params.type == "text" else params.default
    return FlowInput(name=params.name or node_id, type=PortType(params.type), required=required, default=default)


def _ports(params: InputParams) -> Ports:
    return Ports(outputs=(OutputPort(name="value", type=PortType(params.type)),))


def _work(params: InputParams, node_id: str, backends: Backends) -> Work:
    name, variable, variables = params.name or node_id, params.variable, backends.variables

    def give(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It has no input ports.
        value = run.inputs[name]
        return {"value": value if variable is None or value else variables.value(variable)}

    return Pure(give)


INPUT: Final = NodeSpec(summary="A value that the run is given.", params=InputParams, ports=_ports, work=_work)
