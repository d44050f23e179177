"""Structured output: an answer that is valid by a schema, which LangFlow writes as a table of fields."""

from collections.abc import Iterable
from typing import Any, Final

from gateway.langflow.carried import Carried
from gateway.langflow.place import Place
from gateway.langflow.rules.models import asked, prompt, system, tuned
from gateway.values import PortType

FIELDS_MAX: Final = 64
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "boolean": {"type": "boolean"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
}
ROWS: Final = ("dataframe_output", "structured_output_dataframe", "dataframe")
OBJECTS: Final = ("structured_output",)
ONE_OR_MORE: Final = 'size(objects) == 1 ? objects[0] : {"results": objects}'


def structured_output(place: Place) -> None:
    """A model's answer in the form of the component's table."""
    schema = object_schema(place)
    asking = place.model("llm", "model")
    one = place.has("multiple") and not place.component.flag("multiple")
    wanted = schema if one else several(schema)
    params: dict[str, Any] = {
        **asked(place, asking),
        "caller_sampling": False,
        "partial_json": True,
        "structured_output": {"json_schema": wanted},
    }
    inputs = {"prompt": prompt(place)}
    system(place, "system_prompt", params, inputs)
    node = place.add("generate", params, inputs)
    tuned(asking, node)
    place.tunes("system_prompt", f"{node}.system")
    give_objects(place, f"{node}.json", one=one, wrapped=place.component.flag("multiple"))


def give_objects(place: Place, port: str, *, one: bool, wrapped: bool) -> None:
    """The outputs, from a port that gives one object, or {"objects": [...]}."""
    if one:
        value = Carried(port=port, type=PortType.JSON, shape="one")
        place.gives_all(value)
        return
    if place.wants(*ROWS):
        listed = place.add("transform", {"operation": "get", "path": ["objects"], "default": []}, {"value": port}, part="rows")
        for output in ROWS:
            place.gives(output, Carried(port=f"{listed}.result", type=PortType.JSON, shape="rows"))
    if place.wants(*OBJECTS, "structured_response"):
        listed = place.add(
            "transform", {"operation": "get", "path": ["objects"], "default": []}, {"value": port}, part="objects"
        )
        expression = '{"results": objects}' if wrapped else ONE_OR_MORE
        params = {"operation": "expression", "expression": expression, "type": "json"}
        made = place.add("transform", params, {"objects": f"{listed}.result"}, part="object")
        place.gives_all(Carried(port=f"{made}.result", type=PortType.JSON, shape="one"))


def several(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that lists objects, as LangFlow asks models for it."""
    listing = {"type": "array", "items": schema, "minItems": 1}
    return {"type": "object", "properties": {"objects": listing}, "required": ["objects"], "additionalProperties": False}


def object_schema(place: Place, name: str = "output_schema") -> dict[str, Any]:
    """The JSON Schema that a table of fields says."""
    properties: dict[str, Any] = {}
    for row in _rows(place, name):
        field, kind = row.get("name"), str(row.get("type", "str")).strip().lower()
        if not isinstance(field, str) or not field or kind not in _TYPES:
            hint = f"types: {', '.join(_TYPES)}"
            place.refuse(f"a row of the table names no field, or an unknown type {kind[:40]!r}", field=name, instead=hint)
            continue
        described = row.get("description")
        shape = {**_TYPES[kind]} if not _is_on(row.get("multiple")) else {"type": "array", "items": _TYPES[kind]}
        properties[field[:64]] = {**shape, "description": described} if isinstance(described, str) and described else shape
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _rows(place: Place, name: str) -> Iterable[dict[str, Any]]:
    found = place.component.fields.get(name)
    rows = found.value if found is not None else None
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if not 1 <= len(listed) <= FIELDS_MAX:
        place.refuse(f"the table has {len(listed)} rows; 1 to {FIELDS_MAX} are taken", field=name)
    return listed[:FIELDS_MAX]


def _is_on(value: Any) -> bool:
    return value.strip().lower() in {"true", "1", "t", "y", "yes"} if isinstance(value, str) else bool(value)
