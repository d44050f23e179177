"""loop: a flow again and again, until a condition holds, and at most so often. What it carries on is its declared state."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.expressions import Expression
from gateway.expressions import checked as expression
from gateway.flow_model import Flow, InputPort, OutputPort, Ports
from gateway.nodes.spec import Body, BodySpec, Effect, Inputs, NodeParams, Outputs, Work
from gateway.nodes.typed import ValueType, from_json
from gateway.values import ACCEPTED_BY, ANYTHING, PortType
from penstock.errors import BudgetExceeded, FailedPrecondition

ROUNDS_MAX: Final = 100
ROUND: Final = "round"
_OWN: Final = ("rounds", "status")

VariableName = Annotated[str, Field(pattern=NAME_PATTERN)]


class Variable(NodeParams):
    """One variable of a loop's state."""

    type: ValueType = Field(default="text", description="The type of its values.")
    initial: Any = Field(
        default=None, description="Its value before the first round. Left out: the input port of its name gives it."
    )

    @model_validator(mode="after")
    def _initial_fits(self) -> "Variable":
        if self.initial is not None:
            from_json(self.initial, PortType(self.type))
        return self


class LoopParams(NodeParams):
    """Parameters of a loop node."""

    max_rounds: int = Field(ge=1, le=ROUNDS_MAX, description="Most rounds. A loop that reaches them has the status bounded.")
    state: dict[VariableName, Variable] = Field(
        min_length=1,
        max_length=32,
        description="What a round leaves to the next: a body's input of a variable's name reads it, its output writes it. An "
        "output that a branch not taken would have fed leaves the variable as it was.",
    )
    until: Annotated[str, AfterValidator(expression)] | None = Field(
        default=None,
        description="A CEL expression over the state and the node's other inputs. The loop ends after the round in which it "
        "becomes true. Left out: every round is run.",
    )
    on_bound: Literal["finish", "fail"] = Field(
        default="finish", description="What reaching max_rounds with until still false does: give the state, or fail the run."
    )
    body: dict[str, Any] = Field(
        description="The flow that is a round: its nodes and edges. Inputs that are not of the state are input ports of the "
        "node; one called round is given the round's number, from 1."
    )


def _faults(params: LoopParams, body: Flow) -> Sequence[tuple[str, str]]:
    found = []
    for each in body.inputs:
        variable = params.state.get(each.name)
        if variable is not None and each.type.value != variable.type:
            found.append(("body.nodes", f"the input {each.name!r} is {each.type.value}, but the state says {variable.type}"))
    for name in body.outputs:
        variable = params.state.get(name)
        if variable is None:
            known = ", ".join(params.state)
            found.append(("body.nodes", f"the output {name!r} is not a variable of the state; these are: {known}"))
        elif body.output_types[name] not in ACCEPTED_BY[PortType(variable.type)]:
            given = body.output_types[name].value
            found.append(("body.nodes", f"the output {name!r} gives {given}, but the state says {variable.type}"))
    return found + [("state", f"{name!r} is the name of an output of every loop") for name in _OWN if name in params.state]


def _ports(params: LoopParams, body: Flow) -> Ports:
    captured = {
        each.name: InputPort(name=each.name, accepts=ACCEPTED_BY[each.type], optional=not each.required)
        for each in body.inputs
        if each.name not in params.state and each.name != ROUND
    }
    until = Expression(params.until).variables if params.until else ()
    read = {
        name: InputPort(name=name, accepts=ANYTHING)
        for name in until
        if name not in params.state and name not in captured and name != ROUND
    }
    state = (
        InputPort(name=name, accepts=ACCEPTED_BY[PortType(each.type)], optional=each.initial is not None)
        for name, each in params.state.items()
    )
    return Ports(
        inputs=(*state, *captured.values(), *read.values()),
        outputs=(
            *(OutputPort(name=name, type=PortType(each.type)) for name, each in params.state.items()),
            OutputPort(name="rounds", type=PortType.NUMBER),
            OutputPort(name="status", type=PortType.TEXT),
        ),
    )


def _work(params: LoopParams, node_id: str, body_flow: Flow, body: Body) -> Work:
    initial = {
        name: from_json(each.initial, PortType(each.type)) for name, each in params.state.items() if each.initial is not None
    }
    defaults = {each.name: each.default for each in body_flow.inputs if not each.required and each.name not in params.state}
    until = Expression(params.until) if params.until else None

    async def apply(inputs: Inputs, run: Run) -> Outputs:
        values: dict[str, Any] = {**defaults, **initial, **inputs}
        status = "bounded" if until is not None else "done"
        number = 0
        while number < params.max_rounds:
            number += 1
            values[ROUND] = number
            values.update(await body(run.child(node_id, values)))
            if until is not None and _holds(until, values):
                status = "done"
                break
        if status == "bounded":
            run.bounded(node_id)
            if params.on_bound == "fail":
                raise BudgetExceeded(
                    f"the loop ran its {number} rounds and {params.until!r} still does not hold; raise max_rounds",
                    metadata={"budget": "max_rounds", "limit": str(params.max_rounds)},
                )
        return {name: values[name] for name in params.state} | {"rounds": number, "status": status}

    return Effect(apply)


def _holds(until: Expression, values: Mapping[str, Any]) -> bool:
    holds = until.evaluate(values)
    if not isinstance(holds, bool):
        raise FailedPrecondition(f"until must be true or false; it gives {holds!r:.80}")
    return holds


LOOP: Final = BodySpec(
    summary="A flow again and again, until a condition holds, and at most so often.",
    params=LoopParams,
    faults=_faults,
    ports=_ports,
    work=_work,
)
