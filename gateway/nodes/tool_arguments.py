"""A node as a tool: its input ports as a schema of arguments, what a model gives as their values, and its outputs as a text."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.faults import quoted
from gateway.flow_model import InputPort, Node
from gateway.nodes.spec import Outputs
from gateway.values import PortType, as_json, as_text
from penstock.errors import InvalidArgument

_SAYABLE: Final[dict[PortType, dict[str, Any]]] = {
    PortType.TEXT: {"type": "string"},
    PortType.NUMBER: {"type": "number"},
    PortType.BOOLEAN: {"type": "boolean"},
    PortType.LIST: {"type": "array", "items": {"type": "string"}},
}
_SCALARS: Final = ("string", "number", "boolean", "null")
_TOLD: Final[dict[str, tuple[str, ...]]] = {"sql": ("text",), "http": ("status", "text"), "history": ("text",)}
"""Of the outputs of a type those that a model is told; of any other type all."""


def fault_of(port: InputPort) -> str:
    """What is wrong with a port that a model is to give a value, if anything is."""
    if port.optional or PortType.JSON in port.accepts or port.accepts & _SAYABLE.keys():
        return ""
    kinds = " or ".join(sorted(kind.value for kind in port.accepts))
    return f"its input {port.name!r} takes {kinds}, which no model can write"


def parameters(node: Node, given: Collection[str], descriptions: Mapping[str, str]) -> dict[str, Any]:
    """The JSON Schema of a node's arguments, without those that are `given`."""
    ports = [port for port in node.ports.inputs if port.name not in given and _is_sayable(port)]
    return {
        "type": "object",
        "properties": {
            port.name: _schema(port) | ({"description": descriptions[port.name]} if port.name in descriptions else {})
            for port in ports
        },
        "required": [port.name for port in ports if not port.optional],
        "additionalProperties": False,
    }


def given_to(ports: Sequence[InputPort], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the ports, as edges carry them. Raises InvalidArgument, in words for the model."""
    known = {port.name: port for port in ports if _is_sayable(port)}
    unknown = sorted(set(arguments) - known.keys())
    if unknown:
        raise InvalidArgument(f"there is no argument {quoted(unknown[0])}; the arguments: {', '.join(known) or 'none'}")
    values = {}
    for name, port in known.items():
        if arguments.get(name) is not None or (name in arguments and PortType.JSON in port.accepts):
            values[name] = _value(port, arguments[name])
        elif not port.optional:
            raise InvalidArgument(f"the argument {name!r} is missing")
    return values


def result_text(node_type: str, outputs: Outputs) -> str:
    """What a tool gave, as the model is told it: the one output as it reads in a prompt, several as a JSON object."""
    names = _TOLD.get(node_type, tuple(outputs))
    if len(names) == 1:
        return as_text(outputs.get(names[0], "")) or "(nothing)"
    return orjson.dumps({name: as_json(outputs[name]) for name in names if name in outputs}).decode()


def _is_sayable(port: InputPort) -> bool:
    return PortType.JSON in port.accepts or bool(port.accepts & _SAYABLE.keys())


def _schema(port: InputPort) -> dict[str, Any]:
    if PortType.JSON in port.accepts:
        # One that takes no list takes a value of a database; any other JSON as it is.
        return {} if PortType.LIST in port.accepts or len(port.accepts) == 1 else {"type": list(_SCALARS)}
    kinds = [_SAYABLE[kind] for kind in _SAYABLE if kind in port.accepts]
    return dict(kinds[0]) if len(kinds) == 1 else {"anyOf": kinds}


def _value(port: InputPort, value: Any) -> Any:
    """A value of a type that the port takes. Models write numbers as texts and the other way round."""
    kind = _kind(value)
    if kind in port.accepts:
        return tuple(value) if kind is PortType.LIST else value
    if PortType.JSON in port.accepts:
        return value
    if isinstance(value, str) and PortType.NUMBER in port.accepts and (number := _number(value)) is not None:
        return number
    if isinstance(value, str) and PortType.BOOLEAN in port.accepts and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if PortType.TEXT in port.accepts and kind in {PortType.NUMBER, PortType.BOOLEAN}:
        return as_text(value)
    raise InvalidArgument(f"the argument {port.name!r} must be {orjson.dumps(_schema(port)).decode()}; found {quoted(value)}")


def _kind(value: Any) -> PortType:
    if isinstance(value, str):
        return PortType.TEXT
    if isinstance(value, bool):
        return PortType.BOOLEAN
    if isinstance(value, int | float):
        return PortType.NUMBER
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return PortType.LIST if is_list else PortType.JSON


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
