"""Our document while it is being written: nodes with ids of their own, and edges between their ports."""

from dataclasses import dataclass, field
from typing import Any

from gateway.langflow.naming import ID_CHARS_MAX, plain_id


@dataclass(slots=True)
class Draft:
    """The nodes and edges of a flow, or of the body of one of its nodes. `names` are those of its inputs and outputs."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[dict[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add(self, wanted: str, kind: str, params: dict[str, Any], inputs: dict[str, str] | None = None) -> str:
        """A node of this type, with an id like the wanted one: its id. `inputs` are the ports that feed its own."""
        node_id = self._free(plain_id(wanted))
        self.nodes[node_id] = {"id": node_id, "type": kind, "params": params}
        self.edges += [{"source": source, "target": f"{node_id}.{port}"} for port, source in (inputs or {}).items()]
        return node_id

    def claim(self, wanted: str, otherwise: str) -> str:
        """A name for an input or an output that no other has: the wanted one, or one like the other one."""
        name, number = wanted if wanted and wanted not in self.names else plain_id(otherwise), 2
        while name in self.names:
            name, number = f"{plain_id(otherwise)[: ID_CHARS_MAX - 4]}_{number}", number + 1
        self.names.add(name)
        return name

    def document(self) -> dict[str, Any]:
        """What the nodes and edges are in a document."""
        return {"nodes": list(self.nodes.values()), "edges": self.edges}

    def _free(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.nodes:
            ending = f"_{number}"
            name, number = f"{wanted[: ID_CHARS_MAX - len(ending)]}{ending}", number + 1
        return name
