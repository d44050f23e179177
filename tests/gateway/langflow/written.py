"""Exports in few words, and the real ones of the folder beside this file."""

import json
from pathlib import Path
from typing import Any

from gateway.langflow import Imported, Options, attempt, convert
from gateway.validation import examine
from tests.gateway.fakes import World

EXPORTS = sorted((Path(__file__).parent / "exports").glob("*.json"))


def export_of(name: str) -> dict[str, Any]:
    """A real export, to be changed at will."""
    path = Path(__file__).parent / "exports" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def component(
    component_id: str, kind: str = "", *, display_name: str = "", node: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """A node of an export; a field is its value, or the whole field as a dict with a "type" or a "value"."""
    template = {
        name: value if isinstance(value, dict) and {"value", "type"} & set(value) else {"value": value}
        for name, value in fields.items()
    }
    kind = kind or component_id.rpartition("-")[0]
    inner = {"template": {"_type": "Component", **template}, "display_name": display_name or kind, **(node or {})}
    return {"id": component_id, "type": "genericNode", "data": {"id": component_id, "type": kind, "node": inner}}


def link(written: str) -> dict[str, Any]:
    """An edge: "source.output > target.field"; a field with a * in front of it is the output that an edge goes back to."""
    source, target = written.split(" > ")
    (source_id, output), (target_id, field) = source.split("."), target.split(".")
    ending = {"name": field[1:], "id": target_id} if field.startswith("*") else {"fieldName": field, "id": target_id}
    handles = {"sourceHandle": {"id": source_id, "name": output}, "targetHandle": ending}
    return {"source": source_id, "target": target_id, "data": handles}


def written(*components: dict[str, Any], links: list[str], **about: Any) -> dict[str, Any]:
    """An export."""
    return {"name": "Made Up", "data": {"nodes": list(components), "edges": [link(each) for each in links]}, **about}


def imported(export: dict[str, Any], **options: Any) -> Imported:
    """The export, converted; the document is one that validates."""
    made = convert(json.dumps(export), Options(**options))
    _, faults = examine(json.dumps(made.document))
    assert not faults, faults
    return made


def told(export: dict[str, Any] | str) -> list[tuple[str, str]]:
    """The faults of an export: the component and the field of each."""
    text = export if isinstance(export, str) else json.dumps(export)
    _, faults = attempt(text)
    return [(fault.node_id, fault.field) for fault in faults]


def nodes_of(made: Imported, kind: str) -> list[dict[str, Any]]:
    """The parameters of the document's nodes of a type, in its order."""
    return [node["params"] for node in made.document["nodes"] if node["type"] == kind]


async def run(world: World, export: dict[str, Any], inputs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """What a run of the converted export gives."""
    flow = world.compile(json.dumps(imported(export, **options).document))
    return dict((await flow.run(inputs or {})).outputs)
