"""map: a flow for each item of a list, several at a time. The results stand in the order of the items."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import Flow, InputPort, OutputPort, Ports
from gateway.nodes.spec import Body, BodySpec, Effect, Inputs, NodeParams, Outputs, Work
from gateway.values import ACCEPTED_BY, PortType
from penstock.errors import FailedPrecondition, PenstockError

INDEX: Final = "index"
ERRORS: Final = "errors"
_ITEMS: Final = "items"
_LISTS: Final = {
    PortType.TEXT: frozenset({PortType.LIST}),
    PortType.JSON: frozenset({PortType.JSON, PortType.LIST}),
    PortType.DOCUMENTS: frozenset({PortType.DOCUMENTS, PortType.DOCUMENT_LISTS}),
}
"""What a list of items is, by the type of the body's input."""


class MapParams(NodeParams):
    """Parameters of a map node."""

    item: str = Field(
        default="item",
        pattern=NAME_PATTERN,
        description="The body's input that is given the item: a text of a list, a part of a JSON array, or a passage, of the "
        'type "documents". An input called index is given its number, from 0; any other is an input port of the node.',
    )
    width: int = Field(default=8, ge=1, le=64, description="Most items that are worked on at the same time.")
    items_max: int = Field(default=100, ge=1, le=10_000, description="Most items; more are refused.")
    on_error: Literal["fail", "drop", "default"] = Field(
        default="fail",
        description="What an item that fails does: ends the run, is left out, or has the default in its place.",
    )
    default: dict[str, Any] = Field(default={}, description="With on_error default: a value for each output of the body.")
    flatten: bool = Field(default=False, description="Whether lists and passages of the items become one list.")
    body: dict[str, Any] = Field(description="The flow that is run for each item: its nodes and edges.")


def _faults(params: MapParams, body: Flow) -> Sequence[tuple[str, str]]:
    kinds = {each.name: each.type for each in body.inputs}
    found = []
    if params.item not in kinds:
        found.append(("body.nodes", f"the body has no input {params.item!r}, which would be given the item"))
    elif kinds[params.item] not in _LISTS:
        found.append(("body.nodes", f"an item is of the type text, json or documents, not {kinds[params.item].value}"))
    if kinds.get(INDEX, PortType.NUMBER) is not PortType.NUMBER:
        found.append(("body.nodes", "the input index must be of the type number"))
    if params.on_error == "default":
        missing = sorted(set(body.outputs) - set(params.default))
        found += [("default", f"has no value for the body's output {name!r}") for name in missing[:1]]
    return found


def _ports(params: MapParams, body: Flow) -> Ports:
    kinds = {each.name: each.type for each in body.inputs}
    item = kinds.get(params.item, PortType.TEXT)
    captured = [each for each in body.inputs if each.name not in {params.item, INDEX}]
    return Ports(
        inputs=(
            InputPort(name=_ITEMS, accepts=_LISTS.get(item, frozenset({PortType.LIST}))),
            *(InputPort(name=each.name, accepts=ACCEPTED_BY[each.type], optional=not each.required) for each in captured),
        ),
        outputs=(
            *(OutputPort(name=name, type=_gathered(body.output_types[name], params.flatten)) for name in body.outputs),
            OutputPort(name=ERRORS, type=PortType.JSON),
        ),
    )


def _gathered(kind: PortType, flatten: bool) -> PortType:
    if kind in {PortType.LIST, PortType.DOCUMENTS} and flatten:
        return kind
    return {PortType.TEXT: PortType.LIST, PortType.DOCUMENTS: PortType.DOCUMENT_LISTS}.get(kind, PortType.JSON)


def _work(params: MapParams, node_id: str, body_flow: Flow, body: Body) -> Work:
    defaults = {each.name: each.default for each in body_flow.inputs if not each.required}
    takes_index = any(each.name == INDEX for each in body_flow.inputs)
    kinds = {name: (body_flow.output_types[name], params.flatten) for name in body_flow.outputs}

    async def apply(inputs: Inputs, run: Run) -> Outputs:
        items = _items(inputs[_ITEMS], params)
        captured = {**defaults, **{name: value for name, value in inputs.items() if name != _ITEMS}}

        async def one(index: int) -> Mapping[str, Any]:
            given = {**captured, params.item: items[index], **({INDEX: index} if takes_index else {})}
            return await body(run.child(node_id, given))

        results, errors = await _each(len(items), one, params)
        return {name: _gather(results, name, *kind) for name, kind in kinds.items()} | {ERRORS: errors}

    return Effect(apply)


def _items(value: Any, params: MapParams) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise FailedPrecondition(f"a map takes a list; it was given {type(value).__name__}")
    if len(value) > params.items_max:
        raise FailedPrecondition(f"the list has {len(value)} items, more than the items_max of {params.items_max}")
    if value and not isinstance(value[0], str | tuple) and isinstance(value, tuple):
        return [(passage,) for passage in value]  # Each passage by itself, as documents.
    return value


async def _each(count: int, one: Any, params: MapParams) -> tuple[list[Mapping[str, Any] | None], list[dict[str, Any]]]:
    """The result of every item, None where it is left out, and what failed."""
    results: list[Mapping[str, Any] | None] = [None] * count
    errors: list[dict[str, Any]] = []
    waiting = iter(range(count))

    async def work() -> None:
        for index in waiting:
            try:
                results[index] = await one(index)
            except PenstockError as error:
                if params.on_error == "fail":
                    raise error.located(item=str(index)) from None
                errors.append({"index": index, "reason": error.reason, "message": error.message})
                results[index] = params.default if params.on_error == "default" else None

    if count == 1:
        await work()
    else:
        workers = [asyncio.ensure_future(work()) for _ in range(min(params.width, count))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return results, sorted(errors, key=lambda error: int(error["index"]))


def _gather(results: Sequence[Mapping[str, Any] | None], name: str, kind: PortType, flatten: bool) -> Any:
    values = [result[name] for result in results if result is not None and name in result]
    if kind in {PortType.LIST, PortType.DOCUMENTS}:
        lists = [tuple(value) for value in values]
        if flatten:
            return tuple(item for each in lists for item in each)
        return tuple(lists) if kind is PortType.DOCUMENTS else [list(each) for each in lists]
    return tuple(values) if kind is PortType.TEXT else values


MAP: Final = BodySpec(
    summary="A flow for each item of a list, several at a time.", params=MapParams, faults=_faults, ports=_ports, work=_work
)
