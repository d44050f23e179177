"""The reference of the flow language, made from the models that check flows, so that the two cannot drift apart.

It is committed as docs/flow-reference.md; `python -m gateway.reference` writes it again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel

from gateway.document import BudgetDocument, FlowDocument
from gateway.nodes import NODE_TYPES
from gateway.nodes.spec import OneOf, Spec

REFERENCE_FILE: Final = Path(__file__).parents[1] / "docs/flow-reference.md"
_WRITTEN: Final = frozenset({"nodes", "edges", "origin"})
"""Fields of a document that flows.md explains."""

_INTRODUCTION: Final = """# Flow language: reference

Every node type and its parameters, made from the models that check them (`python -m gateway.reference`). How flows are written
is in [flows.md](flows.md); the JSON Schema is [flow.schema.json](../gateway/flow.schema.json), which a gateway serves at
`/v1/flows:schema`. The ports of a node depend on its parameters: `ValidateFlow` tells those of each node of a document.
"""


def reference_text() -> str:
    """The reference as it is committed."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "## The document\n"
    yield from _table(FlowDocument, without=_WRITTEN)
    yield "\n`budget` has:\n"
    yield from _table(BudgetDocument)
    for name, spec in NODE_TYPES.items():
        yield f"\n## {name}\n"
        yield f"{spec.summary}\n"
        yield from _parameters(spec)


def _parameters(spec: Spec) -> Iterator[str]:
    if not isinstance(spec.params, OneOf):
        yield from _table(spec.params)
        return
    for value, model in spec.params.models.items():
        about = (model.__doc__ or "").strip().partition("\n")[0]
        yield f"\n### {spec.params.key} {value}\n"
        yield f"{about}\n"
        yield from _table(model, without=frozenset({spec.params.key}))


def _table(model: type[BaseModel], *, without: frozenset[str] = frozenset()) -> Iterator[str]:
    schema = model.model_json_schema()
    properties = {name: each for name, each in schema.get("properties", {}).items() if name not in without}
    if not properties:
        yield "It has no parameters."
        return
    yield "| parameter | type | default | |"
    yield "|---|---|---|---|"
    required = schema.get("required", ())
    for name, each in properties.items():
        default = "required" if name in required else _default(each)
        yield f"| `{name}` | {_kind(each)} | {default} | {_cell(each.get('description', ''))} |"


def _kind(schema: Any) -> str:
    """What a value is, in a few words."""
    if "const" in schema:
        return f"`{_json(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        kinds = (_kind(each) for each in schema.get("anyOf", schema.get("oneOf")) if each.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema:
        return "object"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return f"{schema.get('type', 'any')}{_range(schema)}"


def _range(schema: Any) -> str:
    low = next((f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">")) if key in schema), "")
    high = next((f"{sign} {schema[key]}" for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in schema), "")
    bounds = ", ".join(each for each in (low, high) if each)
    return f" {bounds}" if bounds else ""


def _default(schema: Any) -> str:
    value = schema.get("default")
    if isinstance(value, dict) and not any(each is not None for each in value.values()):
        return ""
    return "" if value is None or value == [] else f"`{_cell(_json(value))}`"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    REFERENCE_FILE.write_text(reference_text(), encoding="utf-8")
