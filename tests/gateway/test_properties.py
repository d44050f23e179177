"""Whatever a document says, it is a flow that runs or a list of faults; never an unexpected exception."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.document import DOCUMENT_BYTES_MAX
from gateway.execution import RunResult
from gateway.nodes import NODE_TYPES
from gateway.nodes.operations import OPERATIONS
from gateway.schema import flow_schema
from gateway.structs import from_struct, to_struct
from gateway.validation import examine
from penstock.errors import FailedPrecondition, MessageTooLarge
from tests.gateway.fakes import RAG, World

VALIDATOR = jsonschema.Draft202012Validator(flow_schema())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)  # What a double holds, and so a Struct.
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
IDS = st.sampled_from([f"n{number}" for number in range(8)])
PORTS = st.sampled_from(["", "", "", ".value", ".text", ".documents", ".result", ".query", ".prompt", ".a", ".nope"])
TEMPLATES = st.sampled_from(["{a}", "{a} {b}", "{n0}{n1}{question}", "fixed", "{", "{{x}}"])
NODES = st.one_of(
    st.just(("input", {})),
    st.sampled_from(["text", "number", "json"]).map(lambda kind: ("input", {"type": kind})),
    TEMPLATES.map(lambda text: ("prompt", {"template": text})),
    st.integers(0, 5).map(lambda top_k: ("retrieve", {"collection": "c", "top_k": top_k})),
    st.just(("generate", {})),
    st.sampled_from(sorted(OPERATIONS)).map(lambda name: ("transform", {"operation": name})),
    st.just(("output", {})),
    st.tuples(st.sampled_from([*NODE_TYPES, "nope"]), st.dictionaries(st.text(max_size=8), JSON, max_size=2)),
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents that look like flows, most of them with faults."""
    nodes = [{"id": draw(IDS), "type": kind, "params": params} for kind, params in draw(st.lists(NODES, max_size=8))]
    ends = st.tuples(IDS, PORTS).map("".join)
    edges = [{"source": draw(ends), "target": draw(ends)} for _ in range(draw(st.integers(0, 12)))]
    return {"nodes": nodes, "edges": edges}


@st.composite
def sound_flows(draw: st.DrawFn) -> dict[str, Any]:
    """Documents that are flows: each node is fed by nodes before it."""
    kinds: list[tuple[str, dict[str, Any], list[str], str]] = [
        ("prompt", {"template": "{a} and {b}"}, ["a", "b"], "text"),
        ("transform", {"operation": "upper"}, ["value"], "result"),
        ("transform", {"operation": "truncate_chars", "max_chars": 5}, ["value"], "result"),
        ("generate", {"max_tokens": 4}, ["prompt"], "text"),
    ]
    nodes: list[dict[str, Any]] = [{"id": "q", "type": "input"}]
    edges, texts = [], ["q.value"]
    for number in range(draw(st.integers(0, 12))):
        kind, params, inputs, output = draw(st.sampled_from(kinds))
        nodes.append({"id": f"n{number}", "type": kind, "params": params})
        edges += [{"source": draw(st.sampled_from(texts)), "target": f"n{number}.{port}"} for port in inputs]
        texts.append(f"n{number}.{output}")
    nodes.append({"id": "out", "type": "output"})
    edges.append({"source": draw(st.sampled_from(texts)), "target": "out.value"})
    return {"nodes": draw(st.permutations(nodes)), "edges": draw(st.permutations(edges))}


@given(documents())
@settings(deadline=None, max_examples=150)
def test_a_document_is_a_flow_that_runs_or_a_list_of_faults(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    flow, faults = examine(text)
    assert (flow is None) == bool(faults)
    assert all(fault.message and len(str(fault)) < 2000 for fault in faults)
    if flow is None:
        return
    VALIDATOR.validate(value)
    kinds = {"text": "some text", "number": 1.0, "json": {"a": 1}, "boolean": True}
    with suppress(FailedPrecondition, MessageTooLarge):  # A value that a node cannot do anything with.
        asyncio.run(World().compile(text).run({each.name: kinds[each.type.value] for each in flow.inputs}))


@given(sound_flows())
@settings(deadline=None, max_examples=60)
def test_a_sound_flow_runs_the_same_at_once_and_as_a_stream(value: dict[str, Any]) -> None:
    text = json.dumps(value)

    async def both() -> None:
        compiled = World().compile(text)
        result = await compiled.run({"q": "word"})
        events = [event async for event in compiled.events({"q": "word"})]
        assert isinstance(events[-1], RunResult)
        assert events[-1].outputs == result.outputs
        assert result.outputs["out"]

    VALIDATOR.validate(value)
    asyncio.run(both())


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), JSON.map(json.dumps)))
@settings(deadline=None, max_examples=150)
def test_whatever_is_given_as_a_document_is_told_its_faults(text: str | bytes) -> None:
    flow, faults = examine(text)
    assert flow is None
    assert faults


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_flow_with_a_byte_changed_is_a_flow_or_told_its_faults(data: st.DataObject) -> None:
    text = bytearray(RAG.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    flow, faults = examine(bytes(text))
    assert (flow is None) == bool(faults)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_structs_keep_what_json_says(value: dict[str, Any]) -> None:
    assert from_struct(to_struct(value)) == value


def test_the_longest_document_is_examined_without_trouble() -> None:
    nodes = ",".join(
        f'{{"id":"n{number}","type":"prompt","params":{{"template":"{{n{number - 1}}}"}}}}' for number in range(1, 255)
    )
    head = '{"nodes":[{"id":"n0","type":"input"},{"id":"out","type":"output"},' + nodes + '],"edges":['
    edges = ",".join(f'{{"source":"n{number}","target":"n{number + 1}"}}' for number in range(254))
    text = head + edges + ',{"source":"n254","target":"out"}],"description":"' + "x" * 4000 + '"}'
    padded = text + " " * (DOCUMENT_BYTES_MAX - len(text))
    flow, faults = examine(padded)
    assert faults == ()
    assert flow is not None
    assert len(flow.nodes) == 256
