"""What a converted document keeps of where it came from, for whoever speaks LangFlow's API to it."""

from collections.abc import Iterable
from typing import Any, Final

from gateway.langflow.export import Component, Export
from gateway.langflow.place import Entry

PROTECTED: Final = ("code",)


def origin(export: Export, entries: Iterable[Entry]) -> dict[str, Any]:
    """The document's "origin". Of the components' values it holds none."""
    return {
        "format": "langflow",
        "id": export.id,
        "name": export.name,
        "endpoint_name": export.endpoint_name,
        "version": export.version,
        "components": [_component(entry) for entry in entries],
    }


def _component(entry: Entry) -> dict[str, Any]:
    component = entry.component
    written: dict[str, Any] = {
        "id": component.id,
        "type": component.type,
        "display_name": component.display_name,
        "role": entry.role,
        "nodes": entry.nodes,
        "fields": entry.fields,
        "protected": [*PROTECTED, *sorted(name for name, field in component.fields.items() if field.secret)],
    }
    if entry.input:
        written["input"] = entry.input
    if entry.output:
        written["output"] = entry.output
        written["sender_name"] = component.text("sender_name", "AI")
    if entry.source is not None:
        written["source"] = _source(entry.source)
    return written


def _source(component: Component) -> dict[str, str]:
    return {"id": component.id, "display_name": component.display_name, "type": component.type}
