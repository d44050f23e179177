"""A flow document as it is written: JSON text in, its nodes and edges out, each checked for its shape alone.

    {"schema": "penstock.flow.v1", "description": "...",
     "nodes": [{"id": "docs", "type": "retrieve", "params": {"collection": "squad"}}, ...],
     "edges": [{"source": "docs.documents", "target": "prompt.context"}, ...]}

The short form leaves out "schema" and the ports; which port is meant is then inferred (wiring.py).
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.faults import quoted, violations_of
from penstock.errors import Violation

SCHEMA_NAME: Final = "penstock.flow.v1"
DOCUMENT_BYTES_MAX: Final = 2**20
NODES_MAX: Final = 256
EDGES_MAX: Final = 2048
DEPTH_MAX: Final = 32
NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
REFERENCE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}(\.[A-Za-z_][A-Za-z0-9_-]{0,63})?$"

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True)


class NodeDocument(BaseModel):
    """A node as it is written. Its params are checked by its type."""

    model_config = _STRICT

    id: str = Field(pattern=NAME_PATTERN, description="A letter, then letters, digits, underscores and hyphens, at most 64.")
    type: str = Field(description="What the node does.")
    params: dict[str, Any] = Field(default={}, description="The parameters of the node's type.")


class EdgeDocument(BaseModel):
    """An edge as it is written: from a node's output to a node's input."""

    model_config = _STRICT

    source: str = Field(pattern=REFERENCE_PATTERN, description='"node", or "node.port" with one of its output ports.')
    target: str = Field(pattern=REFERENCE_PATTERN, description='"node", or "node.port" with one of its input ports.')


class FlowDocument(BaseModel):
    """The whole of a flow document, its nodes and edges still unchecked."""

    model_config = _STRICT

    schema_name: Literal["penstock.flow.v1"] | None = Field(
        default=None, alias="schema", description="Says which language this is. Left out in the short form."
    )
    description: str = Field(default="", max_length=4096, description="What the flow is for.")
    nodes: list[Any] = Field(min_length=1, max_length=NODES_MAX, description="The nodes, in any order.")
    edges: list[Any] = Field(default=[], max_length=EDGES_MAX, description="Which output feeds which input.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What could be read of a document. `mentioned` holds the ids of nodes that have a fault, so that it is told once."""

    description: str
    nodes: tuple[NodeDocument, ...]
    edges: tuple[tuple[int, EdgeDocument], ...]
    mentioned: frozenset[str]
    content_hash: str


def parse(text: str | bytes, faults: list[Violation]) -> Parsed | None:
    """Reads a document, adding what is wrong with it to `faults`. None: it is not even an object."""
    value = _load(text, faults)
    if value is None:
        return None
    document = _outline(value, faults)
    nodes, mentioned = _nodes(document, faults)
    return Parsed(
        description=document.description,
        nodes=nodes,
        edges=_edges(document, faults),
        mentioned=mentioned,
        content_hash=hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest(),
    )


def _outline(value: dict[str, Any], faults: list[Violation]) -> FlowDocument:
    """The document with its nodes and edges as they are; without them where the outline itself has faults there."""
    try:
        return FlowDocument.model_validate(value)
    except ValidationError as error:
        faults += violations_of(error, FlowDocument)
    nodes, edges = value.get("nodes"), value.get("edges")
    return FlowDocument.model_construct(
        nodes=nodes[:NODES_MAX] if isinstance(nodes, list) else [], edges=edges[:EDGES_MAX] if isinstance(edges, list) else []
    )


def _load(text: str | bytes, faults: list[Violation]) -> Any:
    """The JSON value, or None and a fault. Nothing but objects, no deeper than DEPTH_MAX, gets past this."""
    size = len(text.encode(errors="surrogatepass")) if isinstance(text, str) else len(text)
    if size > DOCUMENT_BYTES_MAX:
        faults.append(Violation(message=f"the document has {size} bytes; at most {DOCUMENT_BYTES_MAX} are taken"))
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        faults.append(Violation(message=f"not JSON: {error}", suggestion='a flow is {"nodes": [...], "edges": [...]}'))
        return None
    if not isinstance(value, dict):
        faults.append(
            Violation(message=f"must be a JSON object; found {quoted(value)}", suggestion='{"nodes": [...], "edges": [...]}')
        )
        return None
    if _is_deeper(value, DEPTH_MAX):
        faults.append(Violation(message=f"nested more than {DEPTH_MAX} deep"))
        return None
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level if isinstance(parent, dict | list) for child in _children(parent)]
        if not level:
            return False
    return True


def _children(parent: dict[str, Any] | list[Any]) -> list[Any]:
    return list(parent.values()) if isinstance(parent, dict) else parent


def _nodes(document: FlowDocument, faults: list[Violation]) -> tuple[tuple[NodeDocument, ...], frozenset[str]]:
    nodes: dict[str, NodeDocument] = {}
    mentioned: set[str] = set()
    for index, raw in enumerate(document.nodes):
        node_id = raw["id"] if isinstance(raw, dict) and isinstance(raw.get("id"), str) else ""
        try:
            node = NodeDocument.model_validate(raw)
        except ValidationError as error:
            mentioned.add(node_id)
            faults += violations_of(error, NodeDocument, node_id=node_id[:64], place=f"nodes[{index}]")
            continue
        if node.id in nodes:
            message, hint = "another node has this id", "give every node an id of its own"
            faults.append(Violation(node_id=node.id, field=f"nodes[{index}].id", message=message, suggestion=hint))
        nodes.setdefault(node.id, node)
    return tuple(nodes.values()), frozenset(mentioned)


def _edges(document: FlowDocument, faults: list[Violation]) -> tuple[tuple[int, EdgeDocument], ...]:
    edges = []
    for index, raw in enumerate(document.edges):
        try:
            edges.append((index, EdgeDocument.model_validate(raw)))
        except ValidationError as error:
            faults += violations_of(error, EdgeDocument, place=f"edges[{index}]")
    return tuple(edges)
