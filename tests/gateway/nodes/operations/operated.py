"""One operation by itself."""

from typing import Any

from gateway.nodes.operations import OPERATIONS, Operation


def operation(name: str, **params: Any) -> Operation:
    """Raises pydantic's ValidationError."""
    return OPERATIONS[name].model_validate({"operation": name, **params})


def result(made: Operation, *values: Any, **named: Any) -> Any:
    """What it gives of values in the order of its ports, or by their names."""
    ports = [port.name for port in made.input_ports()]
    assert len(values) + len(named) <= len(ports)
    return made.work()({**dict(zip(ports, values, strict=False)), **named})
