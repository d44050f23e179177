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
from pydantic import BaseModel, ConfigDict, Field

from gateway.faults import Faults, checked, quoted
from gateway.values import DEPTH_MAX, is_deeper

SCHEMA_NAME: Final = "penstock.flow.v1"
DOCUMENT_BYTES_MAX: Final = 2**20
NODES_MAX: Final = 256
EDGES_MAX: Final = 2048
OUTLINE: Final = '{"nodes": [...], "edges": [...]}'
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


class BudgetDocument(BaseModel):
    """The most that one run may take, all its loops, maps and sub-flows together. Left out: the gateway's own bound."""

    model_config = _STRICT

    model_calls: int | None = Field(default=None, ge=0, le=100_000, description="Answers, embeddings and rerankings.")
    tokens: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Tokens of prompts and answers together.")
    retrievals: int | None = Field(default=None, ge=0, le=100_000, description="Searches.")
    wall_s: float | None = Field(default=None, gt=0, le=3600, description="Seconds from the run's beginning to its end.")


class FlowDocument(BaseModel):
    """The whole of a flow document, its nodes and edges still unchecked."""

    model_config = _STRICT

    schema_name: Literal["penstock.flow.v1"] | None = Field(
        default=None, alias="schema", description="Says which language this is. Left out in the short form."
    )
    description: str = Field(default="", max_length=4096, description="What the flow is for.")
    budget: BudgetDocument = Field(default=BudgetDocument(), description="The most that one run may take.")
    overrides: Literal["none", "sampling", "all"] = Field(
        default="sampling",
        description="What a caller may set for one run: nothing, how generate nodes sample, or any parameter of any node that "
        "does not say what the node connects to.",
    )
    origin: dict[str, Any] | None = Field(default=None, description="What the flow was imported from; written by the importer.")
    nodes: list[Any] = Field(min_length=1, max_length=NODES_MAX, description="The nodes, in any order.")
    edges: list[Any] = Field(default=[], max_length=EDGES_MAX, description="Which output feeds which input.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What could be read of a document. `mentioned` holds the ids of nodes that have a fault, so that it is told once."""

    description: str
    budget: BudgetDocument
    overrides: Literal["none", "sampling", "all"]
    origin: dict[str, Any] | None
    nodes: tuple[NodeDocument, ...]
    edges: tuple[tuple[int, EdgeDocument], ...]
    mentioned: frozenset[str]
    content_hash: str


def parse(text: str | bytes, faults: Faults) -> Parsed | None:
    """Reads a document, adding what is wrong with it to `faults`. None: it is not even an object."""
    value = _load(text, faults)
    if value is None:
        return None
    return _read(value, faults)


def _read(value: dict[str, Any], faults: Faults) -> Parsed:
    document = _outline(value, faults)
    nodes, mentioned = _nodes(document, faults)
    return Parsed(
        description=document.description,
        budget=document.budget,
        overrides=document.overrides,
        origin=document.origin,
        nodes=nodes,
        edges=_edges(document, faults),
        mentioned=mentioned,
        content_hash=hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest(),
    )


def parse_body(value: dict[str, Any], faults: Faults) -> Parsed:
    """Reads the flow inside a node, which stands in the document as an object."""
    return _read(value, faults)


def _load(text: str | bytes, faults: Faults) -> dict[str, Any] | None:
    """The JSON object, or None and a fault. Nothing nested deeper than DEPTH_MAX gets past this."""
    size = len(text.encode(errors="surrogatepass")) if isinstance(text, str) else len(text)
    if size > DOCUMENT_BYTES_MAX:
        faults.add(f"the document has {size} bytes; at most {DOCUMENT_BYTES_MAX} are taken")
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        faults.add(f"not JSON: {error}", suggestion=OUTLINE)
        return None
    if not isinstance(value, dict):
        faults.add(f"must be a JSON object; found {quoted(value)}", suggestion=OUTLINE)
        return None
    if is_deeper(value, DEPTH_MAX):
        faults.add(f"nested more than {DEPTH_MAX} deep")
        return None
    return value


def _outline(value: dict[str, Any], faults: Faults) -> FlowDocument:
    """The document with its nodes and edges as they are; without them where the outline itself has faults there."""
    document = checked(FlowDocument, value, faults)
    if document is not None:
        return document
    nodes, edges = value.get("nodes"), value.get("edges")
    return FlowDocument.model_construct(
        nodes=nodes[:NODES_MAX] if isinstance(nodes, list) else [], edges=edges[:EDGES_MAX] if isinstance(edges, list) else []
    )


def _nodes(document: FlowDocument, faults: Faults) -> tuple[tuple[NodeDocument, ...], frozenset[str]]:
    nodes: dict[str, NodeDocument] = {}
    mentioned: set[str] = set()
    for index, raw in enumerate(document.nodes):
        node_id = raw["id"][:64] if isinstance(raw, dict) and isinstance(raw.get("id"), str) else ""
        node = checked(NodeDocument, raw, faults, node_id=node_id, place=f"nodes[{index}]")
        if node is None:
            mentioned.add(node_id)
        elif node.id in nodes:
            hint = "give every node an id of its own"
            faults.add("another node has this id", node_id=node.id, field=f"nodes[{index}].id", suggestion=hint)
        else:
            nodes[node.id] = node
    return tuple(nodes.values()), frozenset(mentioned)


def _edges(document: FlowDocument, faults: Faults) -> tuple[tuple[int, EdgeDocument], ...]:
    edges = ((index, checked(EdgeDocument, raw, faults, place=f"edges[{index}]")) for index, raw in enumerate(document.edges))
    return tuple((index, edge) for index, edge in edges if edge is not None)
