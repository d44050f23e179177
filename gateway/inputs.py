"""What a run is given, checked against what the flow takes."""

from collections.abc import Mapping
from typing import Any

from gateway.faults import quoted, suggestion
from gateway.flow_model import FlowInput
from gateway.nodes.input import fits
from gateway.values import PortType
from penstock.errors import EmptyText, InvalidInputs, Violation


def bind(declared: tuple[FlowInput, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every input. Raises InvalidInputs with every fault; EmptyText when the only fault is an empty text."""
    names = [each.name for each in declared]
    faults = [_unknown(name, declared) for name in given if name not in names]
    faults += [fault for each in declared if (fault := _fault(each, given)) is not None]
    if faults:
        taken = ", ".join(_described(each) for each in declared) or "none"
        raise InvalidInputs(f"{faults[0].message}; the flow's inputs: {taken}", violations=faults)
    bound = {each.name: given.get(each.name, each.default) for each in declared}
    for each in declared:
        if each.required and each.type is PortType.TEXT and not bound[each.name].strip():
            raise EmptyText(f"the input {each.name!r} is an empty text", metadata={"input": each.name})
    return bound


def _unknown(name: str, declared: tuple[FlowInput, ...]) -> Violation:
    hint = suggestion(name, (each.name for each in declared), "the flow's inputs")
    return Violation(field=f"inputs.{name[:64]}", message=f"the flow has no input {quoted(name)}", suggestion=hint)


def _fault(declared: FlowInput, given: Mapping[str, Any]) -> Violation | None:
    if declared.name not in given:
        if not declared.required:
            return None
        return Violation(field=f"inputs.{declared.name}", message=f"the input {declared.name!r} is missing")
    value = given[declared.name]
    if fits(value, declared.type):
        return None
    field = f"inputs.{declared.name}"
    return Violation(
        field=field, message=f"the input {declared.name!r} must be of the type {declared.type.value}; found {quoted(value)}"
    )


def _described(declared: FlowInput) -> str:
    return f"{declared.name} ({declared.type.value}{'' if declared.required else ', optional'})"
