"""A LangFlow export as it is written: a file in, its components and links out, each checked for its shape alone.

Everything that a flow is not made of (positions, notes, icons, the Python in `code`) is left behind here; of the code, only its
hash is kept.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.faults import Faults, quoted
from gateway.langflow.grouping import flattened
from gateway.langflow.handles import Ends, ends
from gateway.langflow.kinds import kind_of
from gateway.values import is_deeper

EXPORT_BYTES_MAX: Final = 4 * 2**20
DEPTH_MAX: Final = 64
NODES_MAX: Final = 256
EDGES_MAX: Final = 2048
FIELDS_MAX: Final = 512
OUTPUTS_MAX: Final = 32
HASH_CHARS: Final = 12
NOTES: Final = frozenset({"noteNode", "note"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a component. `variable`: the value is the name of a global variable. `secret`: it is never kept."""

    value: Any
    type: str = ""
    variable: bool = False
    secret: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of a component, and the types of what it may carry."""

    name: str
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component. `type` is what the file calls it, `kind` what it is (kinds.py), empty where that is not known."""

    id: str
    type: str
    kind: str
    display_name: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    icon: str = ""
    code_hash: str = ""
    edited: bool = False

    def text(self, name: str, default: str = "") -> str:
        """The text of a field; `default` where it has none."""
        found = self.fields.get(name)
        if found is None or found.secret or found.variable or found.value is None:
            return default
        value = found.value if isinstance(found.value, str) else _as_text(found.value)
        return value.replace("\\n", "\n") if found.type == "str" else value

    def number(self, name: str) -> float | None:
        """The number of a field, None where it has none."""
        found = self.fields.get(name)
        if found is None or found.secret or isinstance(found.value, bool):
            return None
        try:
            return float(found.value)
        except (TypeError, ValueError, OverflowError):
            return None

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a field is on."""
        found = self.fields.get(name)
        if found is None or found.value is None:
            return default
        return found.value.strip().lower() in {"true", "1", "yes"} if isinstance(found.value, str) else bool(found.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What an export says."""

    id: str
    name: str
    description: str
    endpoint_name: str | None
    version: str
    components: Mapping[str, Component]
    links: tuple[Ends, ...]
    notes: int


def is_export(value: object) -> bool:
    """Whether a JSON value is a LangFlow export, whole or only its "data"."""
    if not isinstance(value, dict) or "schema" in value:
        return False
    data = value.get("data", value)
    nodes = data.get("nodes") if isinstance(data, dict) else None
    if not isinstance(nodes, list):
        return False
    return data is not value or any(isinstance(node, dict) and isinstance(node.get("data"), dict) for node in nodes)


def load(text: str | bytes, faults: Faults) -> dict[str, Any] | None:
    """The JSON object of a file, or None and a fault."""
    size = len(text.encode(errors="surrogatepass")) if isinstance(text, str) else len(text)
    if size > EXPORT_BYTES_MAX:
        faults.add(f"the export has {size} bytes; at most {EXPORT_BYTES_MAX} are taken")
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        faults.add(f"not JSON: {error}")
        return None
    if not is_export(value):
        faults.add("not a LangFlow export", suggestion='an export is {"name": ..., "data": {"nodes": [...], "edges": [...]}}')
        return None
    if is_deeper(value, DEPTH_MAX):
        faults.add(f"nested more than {DEPTH_MAX} deep")
        return None
    assert isinstance(value, dict)  # noqa: S101  # is_export has looked.
    return value


def read(value: Mapping[str, Any], faults: Faults) -> Export:
    """The export that a JSON object is; what is wrong with it is added to `faults`."""
    data = value.get("data", value)
    nodes, edges = _listed(data, "nodes", NODES_MAX, faults), _listed(data, "edges", EDGES_MAX, faults)
    nodes, edges = flattened(nodes, edges, faults, nodes_max=NODES_MAX)
    executable = [node for node in nodes if not _is_note(node)]
    components = _components(executable, faults)
    endpoint = value.get("endpoint_name")
    return Export(
        id=_text(value, "id"),
        name=_text(value, "name"),
        description=_text(value, "description"),
        endpoint_name=endpoint[:256] if isinstance(endpoint, str) and endpoint else None,
        version=_text(value, "last_tested_version"),
        components=components,
        links=tuple(_links(edges, components, {_id(node) for node in nodes}, faults)),
        notes=len(nodes) - len(executable),
    )


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found[:4096] if isinstance(found, str) else ""


def _listed(data: Any, key: str, limit: int, faults: Faults) -> list[Any]:
    found = data.get(key) if isinstance(data, dict) else None
    if found is None and key == "edges":
        return []
    if not isinstance(found, list):
        faults.add("must be a list", field=f"data.{key}")
        return []
    if len(found) > limit:
        faults.add(f"has {len(found)} items; at most {limit} are taken", field=f"data.{key}")
    return found[:limit]


def _id(node: Any) -> str:
    node_id = node.get("id") if isinstance(node, dict) else None
    return node_id[:128] if isinstance(node_id, str) else ""


def _is_note(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    data = node.get("data")
    inner = data.get("type") if isinstance(data, dict) else None
    return node.get("type") == "noteNode" or (isinstance(inner, str) and inner in NOTES)


def _components(nodes: Iterable[Any], faults: Faults) -> dict[str, Component]:
    components: dict[str, Component] = {}
    for index, node in enumerate(nodes):
        place = f"data.nodes[{index}]"
        data = node.get("data") if isinstance(node, dict) else None
        inner = data.get("node") if isinstance(data, dict) else None
        if not _id(node) or not isinstance(data, dict) or not isinstance(inner, dict) or not isinstance(data.get("type"), str):
            hint = "a node has an id, and a component in data.type and data.node"
            faults.add("is not a component", node_id=_id(node), field=place, suggestion=hint)
        elif node["id"] in components:
            faults.add("another node has this id", node_id=_id(node), field=f"{place}.id")
        else:
            components[node["id"]] = _component(node["id"], data["type"], inner, faults)
    return components


def _component(node_id: str, kind: str, inner: Mapping[str, Any], faults: Faults) -> Component:
    template = inner.get("template")
    if not isinstance(template, dict):
        faults.add("a component without a template", node_id=node_id, field="data.node.template")
        template = {}
    if len(template) > FIELDS_MAX:
        faults.add(f"has {len(template)} fields; at most {FIELDS_MAX} are read", node_id=node_id, field="data.node.template")
        template = {}
    metadata = inner.get("metadata")
    display_name = inner.get("display_name")
    written = metadata if isinstance(metadata, dict) else {}
    return Component(
        id=node_id,
        type=kind[:128],
        kind=kind_of(kind, written.get("module"), written.get("component_class_name")),
        display_name=display_name[:128] if isinstance(display_name, str) else kind[:128],
        fields={name: _field(each) for name, each in template.items() if isinstance(each, dict) and name != "code"},
        outputs=tuple(_outputs(inner.get("outputs"))),
        icon=inner["icon"][:64] if isinstance(inner.get("icon"), str) else "",
        code_hash=_hash(template.get("code")),
        edited=inner.get("edited") is True,
    )


def _field(written: Mapping[str, Any]) -> Field:
    kind = written.get("type")
    secret = written.get("password") is True or written.get("_input_type") == "SecretStrInput"
    return Field(
        value=None if secret else written.get("value"),
        type=kind if isinstance(kind, str) else "",
        variable=written.get("load_from_db") is True and not secret,
        secret=secret,
        many=written.get("list") is True,
    )


def _outputs(outputs: Any) -> Iterable[Output]:
    for output in outputs[:OUTPUTS_MAX] if isinstance(outputs, list) else ():
        if isinstance(output, dict) and isinstance(output.get("name"), str):
            types = output.get("types")
            named = [kind[:64] for kind in types if isinstance(kind, str)] if isinstance(types, list) else []
            yield Output(name=output["name"][:128], types=tuple(named[:OUTPUTS_MAX]))


def _hash(code: Any) -> str:
    """What LangFlow calls the code's hash. The code itself goes no further."""
    source = code.get("value") if isinstance(code, dict) else None
    if not isinstance(source, str) or not source:
        return ""
    return hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:HASH_CHARS]


def _links(edges: Iterable[Any], known: Mapping[str, Component], nodes: set[str], faults: Faults) -> Iterable[Ends]:
    for index, edge in enumerate(edges):
        place = f"data.edges[{index}]"
        if not isinstance(edge, dict):
            faults.add("is not an edge", field=place)
            continue
        try:
            link = ends(edge)
        except (TypeError, ValueError) as error:
            faults.add(f"the edge cannot be used: {error}", field=place)
            continue
        missing = [node_id for node_id in (link.source, link.target) if node_id not in known]
        if not missing:
            yield link
        elif not all(node_id in nodes for node_id in missing):  # One to a note is of no consequence.
            faults.add(f"there is no node {quoted(missing[0])}", field=place)


def _as_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else ""
