"""Exports with anything at all changed: they are converted or refused, in bounded time, and no line of their code is run."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.importing import examine
from tests.gateway.fakes import World
from tests.gateway.langflow.written import EXPORTS, component, imported, run, written

REAL = [json.loads(path.read_text(encoding="utf-8")) for path in EXPORTS]
SECONDS_MAX = 5.0
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
KEYS = st.sampled_from(
    ["id", "type", "data", "node", "template", "value", "name", "code", "fieldName", "flow", "proxy", "œ", "{"]
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
HOSTILE = st.sampled_from([
    "{" * 50, "{a.__class__}", "{0}", "}", "{{", "œ", "a" * 70_000, "\x00", "\ud800", "ext:a:b@c", "ChatInput", "LoopComponent",
    "Agent",
])  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


PLACES = [places(export["data"]) for export in REAL]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A real export with up to four of its parts taken away, put elsewhere or replaced by anything."""
    which = draw(st.integers(0, len(REAL) - 1))
    export = copy.deepcopy(REAL[which])
    for _ in range(draw(st.integers(1, 4))):
        *path, last = ("data", *draw(st.sampled_from(PLACES[which])))
        parent: Any = export
        for step in path:
            parent = parent[step] if _has(parent, step) else None
        if not _has(parent, last):
            continue
        change = draw(st.sampled_from(["remove", "replace", "hostile", "copy"]))
        if change == "remove":
            del parent[last]
        elif change == "replace":
            parent[last] = draw(ANYTHING)
        elif change == "hostile":
            parent[last] = draw(HOSTILE)
        else:
            parent[last] = copy.deepcopy(REAL[which]["data"]["edges"])
    return export


def _has(parent: Any, step: Any) -> bool:
    if isinstance(parent, dict):
        return step in parent
    return isinstance(parent, list) and isinstance(step, int) and step < len(parent)


@given(mutated())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_changed_export_is_converted_or_refused(export: dict[str, Any]) -> None:
    began = time.monotonic()
    read = examine(json.dumps(export))
    assert (read.flow is None) == bool(read.faults)
    assert all(fault.message for fault in read.faults)
    assert time.monotonic() - began < SECONDS_MAX


@given(ANYTHING)
@settings(max_examples=300, deadline=None)
def test_anything_in_place_of_an_export_is_converted_or_refused(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"data": value}), json.dumps({"data": {"nodes": value, "edges": value}})):
        read = examine(text)
        assert (read.flow is None) == bool(read.faults)


KINDS = [
    "ChatInput", "ChatOutput", "TextInput", "Prompt", "OpenAIModel", "Agent", "Memory", "parser", "FAISS", "LoopComponent",
    "File", "StructuredOutput", "ConditionalRouter", "BatchRunComponent", "Webhook", "SplitText", "Notify", "Listen",
    "SQLComponent", "CurrentDate", "CreateList", "SelectData", "FilterData", "MergeDataComponent", "RunFlow",
    "TypeConverterComponent",
]  # fmt: skip
OUTPUTS = [
    "message",
    "text_output",
    "model_output",
    "item",
    "done",
    "component_as_tool",
    "structured_output",
    "dataframe",
    "true_result",
]
FIELDS = [
    "input_value",
    "input_data",
    "data",
    "tools",
    "llm",
    "search_query",
    "system_message",
    "ingest_data",
    "*item",
    "df",
    "template",
]


@st.composite
def wired(draw: st.DrawFn) -> dict[str, Any]:
    """Components of any kind, connected in any way: circles, loops in loops, types that do not fit."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
    names = [f"{kind}-{number}" for number, kind in enumerate(kinds)]
    ends = st.tuples(st.sampled_from(names), st.sampled_from(OUTPUTS), st.sampled_from(names), st.sampled_from(FIELDS))
    links = [f"{source}.{output} > {target}.{field}" for source, output, target, field in draw(st.lists(ends, max_size=14))]
    template = draw(st.sampled_from(["{a}", "{text}", "{content} {x}", "", "plain"]))
    return written(
        *(component(name, template=template, pattern=template, input_value="", query="") for name in names), links=links
    )


@given(wired())
@settings(max_examples=500, deadline=None)
def test_components_connected_in_any_way_are_converted_or_refused(export: dict[str, Any]) -> None:
    read = examine(json.dumps(export))
    assert (read.flow is None) == bool(read.faults)


async def test_not_a_line_of_the_code_in_an_export_is_run(tmp_path: Path) -> None:
    """A canary that writes a file in every text of an export, as code, template, pattern, handle and name."""
    canary = tmp_path / "sang"
    code = f"__import__('pathlib').Path({str(canary)!r}).write_text('x')"
    songs = [
        f"{{{code}}}",
        code,
        f"import os\n{code}",
        f"{{a.__class__.__init__.__globals__}}{code}",
        f"__import__('os').system('touch {canary}')",
    ]
    exec(code)  # It does sing.
    assert canary.exists()
    canary.unlink()
    for path in EXPORTS:
        for song in songs:
            export = json.loads(path.read_text(encoding="utf-8"))
            for node in export["data"]["nodes"]:
                for name, field in node["data"].get("node", {}).get("template", {}).items():
                    if isinstance(field, dict) and (name == "code" or isinstance(field.get("value"), str)):
                        field["value"] = song
            assert examine(json.dumps(export)).faults
    spared = written(
        component("ChatInput-a", input_value=code, code={"type": "code", "value": ""}), component("ChatOutput-z"),
        links=["ChatInput-a.message > ChatOutput-z.input_value"],
    )  # fmt: skip
    assert await run(World(), spared) == {"message": code}
    assert not canary.exists()


@pytest.mark.parametrize("count", [200])
def test_a_long_chain_of_components_takes_little_time(count: int) -> None:
    prompts = [component(f"Prompt-{number}", template="{q}!") for number in range(count)]
    links = [f"Prompt-{number}.prompt > Prompt-{number + 1}.q" for number in range(count - 1)]
    ends = ["ChatInput-a.message > Prompt-0.q", f"Prompt-{count - 1}.prompt > ChatOutput-z.input_value"]
    began = time.monotonic()
    made = imported(written(component("ChatInput-a"), *prompts, component("ChatOutput-z"), links=links + ends))
    assert len(made.document["nodes"]) == count + 4
    assert time.monotonic() - began < SECONDS_MAX
