"""The two ends of an edge, as LangFlow has written them over the years.

Since 1.0 an edge holds its handles as objects, and again as texts in which every quotation mark is an œ; some files have plain
JSON there. Before 1.0 they were texts with bars: "Type|node|class" and "TypeA;TypeB|field|node". An edge back to the beginning
of a loop ends at an output of its target, not at a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """An edge: from `output` of one node to `field` of another. No output named: the only one. `back`: it closes a loop."""

    source: str
    output: str
    target: str
    field: str
    back: bool = False


def ends(edge: Mapping[str, Any]) -> Ends:
    """Raises ValueError or TypeError with what is wrong with the edge."""
    handles = edge.get("data")
    written = handles if isinstance(handles, dict) else {}
    source = _handle(written.get("sourceHandle") or edge.get("sourceHandle"), "sourceHandle")
    target = _handle(written.get("targetHandle") or edge.get("targetHandle"), "targetHandle")
    source_id, target_id = _node(edge, "source", source), _node(edge, "target", target)
    field, output = target.get("fieldName"), source.get("name", "")
    back = "fieldName" not in target
    field = target.get("name") if back else field
    if not isinstance(field, str) or not isinstance(output, str):
        message = "its handles name no output and no field"
        raise TypeError(message)
    return Ends(source=source_id, output=output, target=target_id, field=field, back=back)


def _node(edge: Mapping[str, Any], end: str, handle: Mapping[str, Any]) -> str:
    node_id = edge.get(end) or handle.get("id")
    if not isinstance(node_id, str) or not node_id:
        message = f"it has no {end}"
        raise ValueError(message)
    return node_id


def _handle(value: object, name: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value:
        message = f"it has no {name}"
        raise ValueError(message)
    if not value.lstrip().startswith("{"):
        return _with_bars(value, name)
    try:
        decoded = orjson.loads(value.replace("œ", '"'))
    except orjson.JSONDecodeError as error:
        message = f"its {name} cannot be read: {error}"
        raise ValueError(message) from error
    if not isinstance(decoded, dict):
        message = f"its {name} is not an object"
        raise TypeError(message)
    return decoded


def _with_bars(value: str, name: str) -> Mapping[str, Any]:
    parts = value.split("|")
    if name == "sourceHandle" and len(parts) >= 2:
        return {"dataType": parts[0], "id": parts[1], "name": ""}
    if name == "targetHandle" and len(parts) >= 3:
        return {"fieldName": parts[1], "id": parts[2]}
    message = f"its {name} cannot be read"
    raise ValueError(message)
