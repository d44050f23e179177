"""A flow with some parameters of its nodes set otherwise, for one run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.faults import Faults, checked, quoted, suggestion
from gateway.flow_model import Flow, Node
from gateway.nodes import NODE_TYPES
from gateway.nodes.spec import BodySpec, NodeParams, ToolUserSpec
from penstock.errors import InvalidArgument, PermissionDenied


def overridden(flow: Flow, overrides: Mapping[str, Any]) -> Flow:
    """`flow` with the parameters {node: {parameter: value}} in place of its own.

    Raises PermissionDenied where the flow does not allow it or a parameter is protected, InvalidArgument with every fault.
    """
    if flow.overrides != "all":
        raise PermissionDenied('this flow takes no overrides; its "overrides" would have to be "all"')
    faults = Faults()
    nodes = {node.id: node for node in flow.nodes}
    for node_id, values in overrides.items():
        if node_id not in nodes:
            faults.add(
                f"the flow has no node {quoted(node_id)}", field="overrides", suggestion=suggestion(node_id, nodes, "nodes")
            )
        elif not isinstance(values, Mapping):
            faults.add("must be an object of parameters", node_id=node_id, field="overrides")
        else:
            nodes[node_id] = _changed(nodes[node_id], values, faults)
    if faults:
        told = faults.told()
        raise InvalidArgument(f"the overrides do not fit the flow: {told[0]}", violations=told)
    return replace(flow, nodes=tuple(nodes.values()))


def _changed(node: Node, values: Mapping[str, Any], faults: Faults) -> Node:
    spec, params = NODE_TYPES[node.type], node.params
    assert isinstance(params, NodeParams)  # noqa: S101  # Validation has made them.
    kept = sorted(set(values) & params.protected)
    if kept or isinstance(spec, BodySpec):
        what = f"the parameter {kept[0]!r}" if kept else "what is in it"
        raise PermissionDenied(
            f"{what} of node {node.id!r} is the flow's alone and cannot be overridden", metadata={"node": node.id}
        )
    written = params.model_dump(exclude_unset=True, by_alias=True) | dict(values)
    changed = checked(type(params), written, faults, node_id=node.id, place="overrides")
    if changed is None:
        return node
    ports = spec.ports(changed, node.tools) if isinstance(spec, ToolUserSpec) else spec.ports(changed)
    if ports != node.ports:
        faults.add("the value would give the node other inputs or outputs", node_id=node.id, field="overrides")
        return node
    return replace(node, params=changed)
