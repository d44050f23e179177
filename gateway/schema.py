"""The JSON Schema of flow documents, made from the models that check them, so that the two cannot drift apart.

It is committed as flow.schema.json for editors; `python -m gateway.schema` writes it again. What a schema cannot say (edges
that fit, cycles, names taken twice) is validation's.
"""

from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.document import SCHEMA_NAME, EdgeDocument, FlowDocument, NodeDocument
from gateway.nodes import NODE_TYPES
from gateway.nodes.agent import ToolNode
from gateway.nodes.spec import BodySpec, NodeParams, OneOf, Spec, ToolUserSpec

SCHEMA_FILE: Final = Path(__file__).with_name("flow.schema.json")


def flow_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a flow document in either spelling, each node type in its $defs."""
    outline, edge = _untitled(FlowDocument.model_json_schema()), _untitled(EdgeDocument.model_json_schema())
    own = {name: _untitled(definition) for name, definition in outline["$defs"].items()}
    properties = outline["properties"]
    properties["schema"] = {"const": SCHEMA_NAME, "description": properties["schema"]["description"]}
    properties["nodes"]["items"] = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in NODE_TYPES]}
    properties["edges"]["items"] = {"$ref": "#/$defs/edge"}
    nodes = {name: _node(name, spec) for name, spec in NODE_TYPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA_NAME.replace('.', ':')}",
        "title": "Penstock flow",
        **outline,
        "description": "A flow: nodes, and the edges that carry their outputs to inputs.",
        "$defs": {"edge": edge, **own, **nodes, **_params_definitions()},
    }


def schema_text() -> str:
    """The schema as it is committed."""
    return orjson.dumps(flow_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _node(name: str, spec: Spec) -> dict[str, Any]:
    outline = _untitled(NodeDocument.model_json_schema())
    models = _models(spec)
    references = [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
    params = references[0] if len(references) == 1 else {"oneOf": references}
    properties = outline["properties"] | {"type": {"const": name}, "params": params}
    required = ["id", "type"] + (["params"] if any(_requires(model) for model in models) else [])
    return outline | {"description": spec.summary, "properties": properties, "required": required}


def _params_definitions() -> dict[str, Any]:
    models = [model for spec in NODE_TYPES.values() for model in _models(spec)]
    _, together = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions = {name: _untitled(definition) for name, definition in together["$defs"].items()}
    for model in (spec.params for spec in NODE_TYPES.values() if isinstance(spec, BodySpec)):
        body = definitions[model.__name__]["properties"]["body"]
        body |= {"$ref": "#"}
        del body["type"], body["additionalProperties"]
    tool_types = sorted({name for spec in NODE_TYPES.values() if isinstance(spec, ToolUserSpec) for name in spec.tool_types})
    definitions[ToolNode.__name__] = {"oneOf": [_tool(name, NODE_TYPES[name]) for name in tool_types if name in NODE_TYPES]}
    return definitions


def _tool(name: str, spec: Spec) -> dict[str, Any]:
    """The node that is a tool, which has no id."""
    node = _node(name, spec)
    properties = {key: each for key, each in node["properties"].items() if key != "id"}
    required = [key for key in node["required"] if key != "id"]
    return node | {"properties": properties, "required": required}


def _models(spec: Spec) -> list[type[NodeParams]]:
    return list(spec.params.models.values()) if isinstance(spec.params, OneOf) else [spec.params]


def _requires(model: type[BaseModel]) -> bool:
    return any(field.is_required() for field in model.model_fields.values())


def _untitled(definition: dict[str, Any]) -> dict[str, Any]:
    """Without the titles that pydantic makes of every name, which tell a reader nothing."""
    properties = {
        name: {key: value for key, value in each.items() if key != "title"}
        for name, each in definition.get("properties", {}).items()
    }
    return {key: value for key, value in definition.items() if key != "title"} | {"properties": properties}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
