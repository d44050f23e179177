"""Grouped nodes, taken apart: a node that holds a flow of its own becomes that flow's nodes, and its edges theirs.

A field of the group stands for a field of a node within (`proxy`), and so does an output of the newer releases; with the older
ones, what the group gives is what the last node within gives.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.faults import Faults

GROUP_DEPTH_MAX: Final = 8


def flattened(nodes: list[Any], edges: list[Any], faults: Faults, *, nodes_max: int) -> tuple[list[Any], list[Any]]:
    """The nodes and edges with no group left among them."""
    for _ in range(GROUP_DEPTH_MAX):
        group = next((node for node in nodes if _inside(node) is not None), None)
        if group is None:
            return nodes, edges
        for each in [node for node in nodes if _inside(node) is not None]:
            nodes, edges = _opened(each, nodes, edges)
        if len(nodes) > nodes_max:
            faults.add(
                f"with its groups taken apart it has {len(nodes)} nodes; at most {nodes_max} are taken", field="data.nodes"
            )
            return [], []
    faults.add(f"groups more than {GROUP_DEPTH_MAX} inside one another", field="data.nodes")
    return [node for node in nodes if _inside(node) is None], edges


def _inner(node: Any) -> Any:
    data = node.get("data") if isinstance(node, dict) else None
    return data.get("node") if isinstance(data, dict) else None


def _inside(node: Any) -> Mapping[str, Any] | None:
    """The flow inside a node, if there is one."""
    inner = _inner(node)
    flow = inner.get("flow") if isinstance(inner, dict) else None
    data = flow.get("data") if isinstance(flow, dict) else None
    return data if isinstance(data, dict) and isinstance(data.get("nodes"), list) and data["nodes"] else None


def _opened(group: Any, nodes: list[Any], edges: list[Any]) -> tuple[list[Any], list[Any]]:
    inside = _inside(group)
    assert inside is not None  # noqa: S101  # Only groups are opened.
    within = [_with_values(node, group) for node in inside["nodes"]]
    inner_edges = inside.get("edges")
    links = list(inner_edges) if isinstance(inner_edges, list) else []
    last = _last(within, links)
    group_id = group.get("id")
    outside = [_redirected(edge, group_id, group, last) for edge in edges]
    return [node for node in nodes if node is not group] + within, outside + links


def _with_values(node: Any, group: Any) -> Any:
    """A node within, with what the group's fields say of it."""
    template = _template(node)
    changed = {}
    for field in _template(group).values():
        proxy = field.get("proxy") if isinstance(field, dict) else None
        if isinstance(proxy, dict) and isinstance(node, dict) and proxy.get("id") == node.get("id"):
            name = proxy.get("field")
            if isinstance(name, str) and isinstance(template.get(name), dict):
                changed[name] = {**template[name], "value": field.get("value"), "load_from_db": field.get("load_from_db")}
    if not changed:
        return node
    inner = {**_inner(node), "template": {**template, **changed}}
    return {**node, "data": {**node["data"], "node": inner}}


def _template(node: Any) -> Mapping[str, Any]:
    inner = _inner(node)
    template = inner.get("template") if isinstance(inner, dict) else None
    return template if isinstance(template, dict) else {}


def _last(nodes: list[Any], edges: list[Any]) -> str:
    sources = {edge.get("source") for edge in edges if isinstance(edge, dict) and isinstance(edge.get("source"), str)}
    names = [node["id"] for node in nodes if isinstance(node, dict) and isinstance(node.get("id"), str)]
    return next((name for name in names if name not in sources), "")


def _redirected(edge: Any, group_id: Any, group: Any, last: str) -> Any:
    """An edge of the group as an edge of the node within that is meant."""
    if not isinstance(edge, dict):
        return edge
    if edge.get("target") == group_id:
        edge = _entering(edge, group)
    return _leaving(edge, group, last) if edge.get("source") == group_id else edge


def _entering(edge: dict[str, Any], group: Any) -> dict[str, Any]:
    handle = _handle(edge, "targetHandle")
    written = handle.get("fieldName")
    field = _template(group).get(written) if isinstance(written, str) else None
    proxy = handle.get("proxy") or (field.get("proxy") if isinstance(field, dict) else None)
    if not isinstance(proxy, dict):
        return edge
    target = {**handle, "id": proxy.get("id"), "fieldName": proxy.get("field")}
    return {**edge, "target": proxy.get("id"), "data": {**_data(edge), "targetHandle": target}}


def _leaving(edge: dict[str, Any], group: Any, last: str) -> dict[str, Any]:
    handle = _handle(edge, "sourceHandle")
    proxy = handle.get("proxy") or _output_proxy(group, handle.get("name"))
    source = {**handle, "id": last}
    if isinstance(proxy, dict):
        source = {**handle, "id": proxy.get("id"), "name": proxy.get("name", "")}
    return {**edge, "source": source["id"], "data": {**_data(edge), "sourceHandle": source}}


def _data(edge: dict[str, Any]) -> dict[str, Any]:
    data = edge.get("data")
    return data if isinstance(data, dict) else {}


def _handle(edge: dict[str, Any], name: str) -> dict[str, Any]:
    handle = _data(edge).get(name)
    return handle if isinstance(handle, dict) else {}


def _output_proxy(group: Any, name: Any) -> Any:
    inner = _inner(group)
    outputs = inner.get("outputs") if isinstance(inner, dict) else None
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict) and output.get("name") == name:
            return output.get("proxy")
    return None
