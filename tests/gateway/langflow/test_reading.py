"""Reading exports: handles, groups, notes, sizes, and everything that is wrong with a file at once."""

import json
from typing import Any

import pytest

from gateway.langflow import attempt, is_export
from gateway.langflow.handles import ends
from gateway.langflow.kinds import kind_of
from tests.gateway.fakes import CHAT, World
from tests.gateway.langflow.written import component, export_of, imported, link, run, told, written

SOURCE = {"dataType": "ChatInput", "id": "ChatInput-a", "name": "message", "output_types": ["Message"]}
TARGET = {"fieldName": "input_value", "id": "ChatOutput-z", "inputTypes": ["Message"], "type": "str"}


def oe(handle: dict[str, Any]) -> str:
    return json.dumps(handle).replace('"', "œ")


@pytest.mark.parametrize(
    "edge",
    [
        {"data": {"sourceHandle": SOURCE, "targetHandle": TARGET}},
        {"sourceHandle": oe(SOURCE), "targetHandle": oe(TARGET)},
        {"sourceHandle": json.dumps(SOURCE), "targetHandle": json.dumps(TARGET)},
        {"data": {"sourceHandle": oe(SOURCE), "targetHandle": json.dumps(TARGET)}},
        {"sourceHandle": "ChatInput|ChatInput-a|Text|object", "targetHandle": "Text;Record|input_value|ChatOutput-z"},
    ],
    ids=["objects", "œ", "plain JSON", "texts in data", "bars"],
)
async def test_handles_are_read_in_every_spelling_of_any_release(edge: dict[str, Any]) -> None:
    found = ends({"source": "ChatInput-a", "target": "ChatOutput-z", **edge})
    assert (found.source, found.target, found.field, found.back) == ("ChatInput-a", "ChatOutput-z", "input_value", False)
    export = written(component("ChatInput-a"), component("ChatOutput-z"), links=[])
    export["data"]["edges"] = [{"source": "ChatInput-a", "target": "ChatOutput-z", **edge}]
    assert await run(World(), export, {"input_value": "Hi"}) == {"message": "Hi"}


@pytest.mark.parametrize(
    ("written_type", "module", "class_name", "kind"),
    [
        ("Prompt Template", None, None, "Prompt"),
        ("parser", None, None, "Parser"),
        ("ext:openai:OpenAIModelComponent@official", None, None, "Model"),
        ("ext:datastax:AstraDBVectorStoreComponent@official-pre-a", None, None, "VectorStore"),
        ("KBRetrieval", None, None, "Knowledge"),
        ("Something", "lfx.components.processing.parser.ParserComponent", None, "Parser"),
        ("Something", None, "AgentComponent", "Agent"),
        ("Component", None, None, ""),
        ("", None, None, ""),
    ],
)
def test_a_component_is_known_under_any_of_its_names(
    written_type: str, module: str | None, class_name: str | None, kind: str
) -> None:
    assert kind_of(written_type, module, class_name) == kind


def test_the_bare_data_of_an_export_is_one_too() -> None:
    export = written(
        component("ChatInput-a"), component("ChatOutput-z"), links=["ChatInput-a.message > ChatOutput-z.input_value"]
    )
    assert is_export(export)
    assert is_export(export["data"])
    assert imported(export["data"]).document["nodes"] == imported(export).document["nodes"]
    assert not any(is_export(value) for value in (json.loads(CHAT), [], None, {}, {"nodes": []}, {"data": {}}))


def group() -> dict[str, Any]:
    """A node that holds a prompt and a model, with a field of each shown at the outside."""
    inside = written(
        component("Prompt-p", template="{style}: {q}", style="plain"), component("OpenAIModel-m"),
        links=["Prompt-p.prompt > OpenAIModel-m.input_value"],
    )  # fmt: skip
    fields = {
        "q_Prompt-p": {"value": "", "proxy": {"id": "Prompt-p", "field": "q"}},
        "style_Prompt-p": {"value": "loud", "proxy": {"id": "Prompt-p", "field": "style"}},
    }
    return component("GroupNode-g", "GroupNode", node={"flow": inside}, **fields)


async def test_a_group_is_taken_apart_and_its_fields_are_those_within() -> None:
    into = link("ChatInput-a.message > GroupNode-g.q_Prompt-p")
    into["data"]["targetHandle"]["proxy"] = {"id": "Prompt-p", "field": "q"}
    export = written(
        component("ChatInput-a"),
        group(),
        component("ChatOutput-z"),
        links=["GroupNode-g.text_output > ChatOutput-z.input_value"],
    )
    export["data"]["nodes"][1]["data"]["node"]["flow"]["data"]["nodes"][0]["data"]["node"]["template"]["q"] = {"value": ""}
    export["data"]["edges"].append(into)
    world = World()
    assert await run(world, export, {"input_value": "Why?"}) == {"message": "It was Denver."}
    assert world.generator.requests[0].prompt == "loud: Why?"


def test_groups_without_an_end_are_refused() -> None:
    node: dict[str, Any] = component("Prompt-p", template="x")
    for depth in range(9):
        node = component(f"Group-{depth}", "GroupNode", node={"flow": {"data": {"nodes": [node], "edges": []}}})
    assert ("", "data.nodes") in told(written(node, links=[]))


def test_notes_and_what_hangs_on_nothing_are_passed_over() -> None:
    note = {"id": "note-1", "type": "noteNode", "data": {"id": "note-1", "type": "note", "node": {"description": "x"}}}
    loose = component("TavilySearchComponent-t")
    export = written(
        component("ChatInput-a"),
        component("ChatOutput-z"),
        note,
        loose,
        links=["ChatInput-a.message > ChatOutput-z.input_value"],
    )
    made = imported(export)
    assert "not connected to anything" in next(line.notes for line in made.lines if line.component == loose["id"])
    assert "note-1" not in {line.component for line in made.lines}


def test_all_that_is_wrong_is_told_at_once_with_what_could_stand_there() -> None:
    export = written(
        component("ChatInput-a"), component("UnifiedWebSearch-w"), component("PythonREPLComponent-p"),
        component("OpenAIModel-m", temperature=9), component("Mystery-x"), component("ChatOutput-z"),
        links=[
            "ChatInput-a.message > UnifiedWebSearch-w.query", "UnifiedWebSearch-w.results > PythonREPLComponent-p.python_code",
            "PythonREPLComponent-p.results > OpenAIModel-m.input_value", "Mystery-x.y > OpenAIModel-m.system_message",
            "OpenAIModel-m.text_output > ChatOutput-z.input_value",
        ],
    )  # fmt: skip
    _, faults = attempt(json.dumps(export))
    assert {fault.node_id for fault in faults} == {"UnifiedWebSearch-w", "PythonREPLComponent-p", "Mystery-x", "OpenAIModel-m"}
    said = {fault.node_id: fault for fault in faults}
    assert "http node" in said["UnifiedWebSearch-w"].suggestion
    assert "no code is run" in said["PythonREPLComponent-p"].suggestion
    assert "'Mystery'" in said["Mystery-x"].message


def test_what_comes_after_a_fault_is_not_told_too() -> None:
    export = written(
        component("ArXivComponent-x"), component("LoopComponent-l"), component("parser-p", pattern="{title}"),
        component("Prompt-q", template="{a.b}"), component("parser-o", pattern="{title}"), component("ChatOutput-z"),
        links=[
            "ArXivComponent-x.papers > LoopComponent-l.data", "LoopComponent-l.item > parser-p.input_data",
            "parser-p.parsed_text > LoopComponent-l.*item", "LoopComponent-l.done > parser-o.input_data",
            "parser-o.parsed_text > Prompt-q.x", "Prompt-q.prompt > ChatOutput-z.input_value",
        ],
    )  # fmt: skip
    assert set(told(export)) == {("ArXivComponent-x", "type"), ("Prompt-q", "template")}


@pytest.mark.parametrize("tool", ["URLComponent", "UnifiedWebSearch", "Agent", "File"])
def test_an_agent_is_given_no_tool_that_has_no_counterpart(tool: str) -> None:
    export = written(
        component("ChatInput-a"), component("Agent-m"), component("ChatOutput-z"),
        component(f"{tool}-t", node={"tool_mode": True}),
        links=[
            "ChatInput-a.message > Agent-m.input_value", f"{tool}-t.component_as_tool > Agent-m.tools",
            "Agent-m.response > ChatOutput-z.input_value",
        ],
    )  # fmt: skip
    assert told(export) == [(f"{tool}-t", "type")]


def test_a_component_that_someone_edited_is_refused_by_its_name() -> None:
    export = export_of("1.13.0-basic-prompting")
    prompt = next(node for node in export["data"]["nodes"] if node["data"]["type"] == "Prompt")
    prompt["data"]["node"]["template"]["code"]["value"] += "\n# A line more."
    assert told(export) == [(prompt["id"], "code")]


def test_a_component_that_langflow_marks_as_edited_is_refused() -> None:
    export = export_of("1.13.0-basic-prompting")
    prompt = next(node for node in export["data"]["nodes"] if node["data"]["type"] == "Prompt")
    prompt["data"]["node"]["edited"] = True
    assert told(export) == [(prompt["id"], "code")]


def test_the_code_of_another_component_is_refused() -> None:
    export = export_of("1.13.0-basic-prompting")
    nodes = {node["data"]["type"]: node for node in export["data"]["nodes"] if node["type"] == "genericNode"}
    code = nodes["LanguageModelComponent"]["data"]["node"]["template"]["code"]
    nodes["Prompt"]["data"]["node"]["template"]["code"] = code
    assert told(export) == [(nodes["Prompt"]["id"], "code")]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("not JSON", ""),
        ("[]", ""),
        ('{"data": {"nodes": "x"}}', ""),
        ('{"data": {"nodes": [], "edges": 1}}', "data.edges"),
        ('{"data": {"nodes": [1, {"id": "a"}], "edges": []}}', "data.nodes[0]"),
        ('{"data": {"nodes": [], "edges": [1]}}', "data.edges[0]"),
        ('{"data": {"nodes": [], "edges": [{"source": "a"}]}}', "data.edges[0]"),
        (json.dumps({"data": {"nodes": [{}] * 300, "edges": []}}), "data.nodes"),
        ('{"data": {"nodes": [' + "[" * 100 + "]" * 100 + "]}}", ""),
    ],
)
def test_what_is_no_export_is_told_where(text: str, field: str) -> None:
    assert field in {each for _, each in told(text)}


def test_an_export_has_a_largest_size() -> None:
    assert told('{"data": {"nodes": ["' + "x" * (4 * 2**20) + '"]}}') == [("", "")]


def test_two_nodes_with_one_id_are_told() -> None:
    export = written(component("ChatInput-a"), component("ChatInput-a"), component("ChatOutput-z"), links=[])
    assert ("ChatInput-a", "data.nodes[1].id") in told(export)
