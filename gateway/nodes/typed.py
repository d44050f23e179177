"""The types of values as control nodes declare them, and what a JSON value of each is."""

from typing import Any, Final, Literal

from gateway.values import PortType, is_finite

ValueType = Literal["text", "number", "boolean", "documents", "document_lists", "list", "json"]

EMPTY: Final[dict[PortType, Any]] = {PortType.DOCUMENTS: (), PortType.DOCUMENT_LISTS: (), PortType.LIST: ()}
"""The one value of these types that a flow document can write."""


def from_json(value: Any, kind: PortType) -> Any:
    """A value that a flow document writes, as edges carry it. Raises ValueError where it is not of the type."""
    if kind in EMPTY and value == []:
        return EMPTY[kind]
    if kind is PortType.LIST and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind in EMPTY or not of_type(value, kind):
        message = f"is not of the type {kind.value}"
        raise ValueError(message)
    return value


def of_type(value: Any, kind: PortType) -> bool:
    """Whether a value, as edges carry it, is of the type."""
    match kind:
        case PortType.TEXT:
            return isinstance(value, str)
        case PortType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
        case PortType.BOOLEAN:
            return isinstance(value, bool)
        case PortType.JSON:
            return not isinstance(value, tuple) and is_finite(value)
    return isinstance(value, tuple)
