"""What a converted document keeps of where it came from, for whoever speaks LangFlow's API to it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.langflow.export import Component, Export, Output
from gateway.langflow.place import Entry, Options

PROTECTED: Final = {"SQL": ["database_url", "query"]}
"""What LangFlow lets no caller set, beside the code."""

_ASKING: Final = frozenset({"Model", "Agent"})


def origin(export: Export, entries: Iterable[Entry], options: Options) -> dict[str, Any]:
    """The document's "origin", its components in the order of the export. Of their values it holds none."""
    place = {component_id: number for number, component_id in enumerate(export.components)}
    return {
        "format": "langflow",
        "id": export.id,
        "name": export.name,
        "endpoint_name": export.endpoint_name,
        "version": export.version,
        "components": [
            _component(entry, options) for entry in sorted(entries, key=lambda entry: place.get(entry.component.id, len(place)))
        ],
    }


def _component(entry: Entry, options: Options) -> dict[str, Any]:
    component = entry.component
    written: dict[str, Any] = {
        "id": component.id,
        "type": component.type,
        "display_name": component.display_name,
        "role": entry.role,
        "nodes": entry.nodes,
        "outputs": [_gives(output, entry.ports) for output in component.outputs],
        "fields": entry.fields,
        "protected": ["code", *PROTECTED.get(component.kind, ())],
    }
    variables = {name: str(component.fields[name].value) for name in entry.fields if _is_variable(component, name)}
    if variables:
        written["variables"] = variables
    if entry.input:
        written["input"] = entry.input
    if entry.output:
        written["output"] = entry.output
        written["sender_name"] = component.text("sender_name", "AI")
    if entry.source is not None:
        written["source"] = _source(entry.source, options)
    return written


def _gives(output: Output, ports: Mapping[str, str]) -> dict[str, Any]:
    return {"name": output.name, "types": list(output.types), "port": ports.get(output.name, ports.get("*", ""))}


def _is_variable(component: Component, name: str) -> bool:
    return name in component.fields and component.fields[name].variable


def _source(component: Component, options: Options) -> dict[str, Any]:
    """As LangFlow tells it of an answer: by the model's name and its icon, where a model gave it."""
    if component.kind not in _ASKING:
        return {"id": component.id, "display_name": component.display_name, "type": component.display_name}
    return {
        "id": component.id, "display_name": component.display_name, "type": options.model, "icon": component.icon or None,
    }  # fmt: skip
