"""What each kind of component becomes, in exports of a few components."""

import json
from typing import Any

import pytest

from gateway.values import Document
from penstock.errors import FailedPrecondition
from tests.gateway.fakes import World
from tests.gateway.langflow.written import component, imported, nodes_of, run, told, written

CHAT = [component("ChatInput-a", input_value="Hello"), component("ChatOutput-z")]


def between(*middle: dict[str, Any], links: list[str], **about: Any) -> dict[str, Any]:
    """A chat input, these, and a chat output."""
    return written(CHAT[0], *middle, CHAT[1], links=links, **about)


async def test_a_chat_is_remembered_unless_the_component_says_no() -> None:
    kept = imported(between(links=["ChatInput-a.message > ChatOutput-z.input_value"]))
    assert [node["role"] for node in nodes_of(kept, "history")] == ["user", "assistant"]
    quiet = written(
        component("ChatInput-a", should_store_message=False),
        component("ChatOutput-z", should_store_message=False),
        links=["ChatInput-a.message > ChatOutput-z.input_value"],
    )
    assert nodes_of(imported(quiet), "history") == []
    assert await run(World(), quiet, {"input_value": "Hi"}) == {"message": "Hi"}


async def test_a_run_without_a_message_has_the_component_s_own() -> None:
    echo = between(links=["ChatInput-a.message > ChatOutput-z.input_value"])
    assert await run(World(), echo) == {"message": "Hello"}


async def test_a_prompt_takes_double_braces_and_names_that_are_no_identifiers() -> None:
    doubled = component("Prompt-p", template='{"q": "{{question}}"}', use_double_brackets=True)
    export = between(doubled, links=["ChatInput-a.message > Prompt-p.question", "Prompt-p.prompt > ChatOutput-z.input_value"])
    assert await run(World(), export) == {"message": '{"q": "Hello"}'}
    odd = component("Prompt-p", template="{große frage} {{x}} {other}", other="?")
    export = between(odd, links=["ChatInput-a.message > Prompt-p.große frage", "Prompt-p.prompt > ChatOutput-z.input_value"])
    assert await run(World(), export) == {"message": "Hello {x} ?"}


@pytest.mark.parametrize("template", ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>10}", "{", "{}"])
def test_a_template_that_is_more_than_names_is_refused(template: str) -> None:
    export = between(component("Prompt-p", template=template), links=["Prompt-p.prompt > ChatOutput-z.input_value"])
    assert told(export) == [("Prompt-p", "template")]


async def test_any_vendor_s_model_is_ours_with_its_sampling() -> None:
    for kind, limit in (
        ("OpenAIModel", "max_tokens"),
        ("ext:google:GoogleGenerativeAIModelComponent@official", "max_output_tokens"),
    ):
        fields = {"temperature": 0.5, limit: 64, "system_message": "Be brief.", "api_key": {"value": "sk-1", "password": True}}
        model = component("M-m", kind, **fields)
        world = World()
        export = between(model, links=["ChatInput-a.message > M-m.input_value", "M-m.text_output > ChatOutput-z.input_value"])
        assert await run(world, export, model="small") == {"message": "It was Denver."}
        (request,) = world.generator.requests
        assert (request.model, request.prompt, request.system) == ("small", "Hello", "Be brief.")
        assert (request.sampling.temperature, request.sampling.max_tokens) == (0.5, 64)
        assert "sk-1" not in json.dumps(imported(export).document)


def test_a_temperature_out_of_range_is_told_with_its_field() -> None:
    model = component("OpenAIModel-m", temperature=7)
    links = ["ChatInput-a.message > OpenAIModel-m.input_value", "OpenAIModel-m.text_output > ChatOutput-z.input_value"]
    assert told(between(model, links=links)) == [("OpenAIModel-m", "temperature")]


async def test_an_agent_without_tools_answers_with_the_conversation_before_it() -> None:
    agent = component("Agent-m", system_prompt="Be kind.", n_messages=10, add_calculator_tool=True, tools=[])
    export = between(agent, links=["ChatInput-a.message > Agent-m.input_value", "Agent-m.response > ChatOutput-z.input_value"])
    made = imported(export)
    (params,) = nodes_of(made, "generate")
    assert (params["system"], params["history"], params["history_max"]) == ("Be kind.", True, 10)
    assert any("calculator" in note for line in made.lines for note in line.notes)


async def test_an_agent_is_told_what_langflow_puts_into_its_instructions() -> None:
    agent = component("Agent-m", system_prompt='It is {current_date}, {model_name}.{optional_user_context} {"k": 1}')
    links = ["ChatInput-a.message > Agent-m.input_value", "Agent-m.response > ChatOutput-z.input_value"]
    world = World()
    await run(world, between(agent, links=links), model="small")
    assert world.generator.requests[0].system == 'It is 2026-03-14, small. {"k": 1}'
    date = component("CurrentDate-d", timezone="UTC")
    assert await run(World(), between(date, links=["CurrentDate-d.current_date > ChatOutput-z.input_value"])) == {
        "message": "Current date and time in UTC: 2026-03-14 15:09:26 UTC"
    }


def test_a_step_in_between_keeps_its_own_sampling() -> None:
    export = between(
        component("Agent-m"),
        component("Agent-n"),
        links=[
            "ChatInput-a.message > Agent-m.input_value",
            "Agent-m.response > Agent-n.input_value",
            "Agent-n.response > ChatOutput-z.input_value",
        ],
    )
    assert [params.get("caller_sampling", True) for params in nodes_of(imported(export), "generate")] == [False, True]


async def test_a_structured_answer_of_an_agent_fills_a_parser() -> None:
    schema = [{"name": "name", "type": "str", "multiple": "False"}, {"name": "tags", "type": "str", "multiple": True}]
    agent = component("Agent-m", output_schema=schema, format_instructions="As JSON.", system_prompt="Extract.")
    parser = component("parser-p", pattern="{name}: {tags}", sep="|", mode="Parser")
    links = [
        "ChatInput-a.message > Agent-m.input_value",
        "Agent-m.structured_response > parser-p.input_data",
        "parser-p.parsed_text > ChatOutput-z.input_value",
    ]
    world = World()
    world.generator.script = ['{"objects": [{"name": "Ada", "tags": ["x", "y"]}]}']
    assert await run(world, between(agent, parser, links=links)) == {"message": 'Ada: ["x","y"]'}
    assert world.generator.requests[0].system == "Extract.\n\nAs JSON."


async def test_instructions_that_are_connected_keep_those_of_the_form() -> None:
    agent = component("Agent-m", output_schema=[{"name": "x", "type": "int"}], format_instructions='As {"x": 1}.')
    links = [
        "ChatInput-a.message > Agent-m.input_value",
        "ChatInput-a.message > Agent-m.system_prompt",
        "Agent-m.structured_response > ChatOutput-z.input_value",
    ]
    world = World()
    world.generator.script = ['{"objects": [{"x": 1}, {"x": 2}]}']
    assert await run(world, between(agent, links=links)) == {"message": '{"results":[{"x":1},{"x":2}]}'}
    assert world.generator.requests[0].system == 'Hello\n\nAs {"x": 1}.'


def test_a_model_that_another_component_asks_is_set_where_it_is_asked() -> None:
    links = [
        "ChatInput-a.message > StructuredOutput-s.input_value",
        "OpenAIModel-m.model_output > StructuredOutput-s.llm",
        "StructuredOutput-s.structured_output > ChatOutput-z.input_value",
    ]
    schema = [{"name": "x", "type": "int"}]
    export = between(
        component("OpenAIModel-m", temperature=0.3), component("StructuredOutput-s", output_schema=schema), links=links
    )
    made = imported(export)
    assert nodes_of(made, "generate")[0]["temperature"] == 0.3
    model = next(each for each in made.document["origin"]["components"] if each["id"] == "OpenAIModel-m")
    assert model["fields"] == {"temperature": "StructuredOutput-s.temperature"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Text: {text}", "Text: one\nText: two"),
        ("{content} ({source})", "one (a.txt)\ntwo ()"),
        ("{score}", "1.0000\n0.5000"),
    ],
)
async def test_passages_go_through_a_parser_s_template(pattern: str, expected: str) -> None:
    world = World()
    world.retriever.documents = (
        Document(chunk_id="c1", document_id="d1", text="one", score=1.0, metadata={"source": "a.txt"}),
        Document(chunk_id="c2", document_id="d2", text="two", score=0.5),
    )
    store = component("FAISS-s", index_name="My Index", number_of_results=2, search_query="")
    links = [
        "ChatInput-a.message > FAISS-s.search_query",
        "FAISS-s.search_results > parser-p.input_data",
        "parser-p.parsed_text > ChatOutput-z.input_value",
    ]
    export = between(store, component("parser-p", pattern=pattern, sep="\n"), links=links)
    assert await run(world, export) == {"message": expected}
    assert world.retriever.calls == [("my-index", "Hello", 2)]


async def test_what_fills_a_store_is_told_and_is_not_part_of_the_flow() -> None:
    store, search = component("AstraDB-i"), component("AstraDB-s", collection_name="notes", search_query="")
    export = between(
        component("File-f"), component("SplitText-t"), store, search, component("URL-u"),
        links=[
            "File-f.data > SplitText-t.data_inputs", "SplitText-t.chunks > AstraDB-i.ingest_data",
            "URL-u.data > AstraDB-i.ingest_data",
            "ChatInput-a.message > AstraDB-s.search_query", "AstraDB-s.search_results > ChatOutput-z.input_value",
        ],
    )  # fmt: skip
    made = imported(export)
    notes = {line.component: " ".join(line.notes) for line in made.lines}
    assert all("penstock ingest" in notes[each] for each in ("File-f", "SplitText-t", "AstraDB-i", "URL-u"))
    assert [node["type"] for node in made.document["nodes"]].count("retrieve") == 1


def test_an_export_that_only_fills_a_store_is_refused_with_what_does_it_here() -> None:
    export = written(
        component("File-f"), component("SplitText-t"), component("KnowledgeIngestion-k"),
        links=["File-f.message > SplitText-t.data_inputs", "SplitText-t.dataframe > KnowledgeIngestion-k.input_df"],
    )  # fmt: skip
    assert told(export) == [("", "data.nodes")]


@pytest.mark.parametrize(
    ("operator", "match", "case_sensitive", "expected"),
    [
        ("equals", "hello", False, "yes"),
        ("equals", "hello", True, "no"),
        ("not equals", "Bye", True, "yes"),
        ("contains", "ell", True, "yes"),
        ("starts with", "lo", True, "no"),
        ("ends with", "LO", False, "yes"),
        ("regex", "H.*o", True, "yes"),
        ("regex", "ello", True, "no"),
        ("less than", "5", True, "no"),
    ],
)
async def test_a_router_sends_a_message_one_way(operator: str, match: str, case_sensitive: bool, expected: str) -> None:
    router = component("ConditionalRouter-r", operator=operator, match_text=match, case_sensitive=case_sensitive, input_text="")
    links = [
        "ChatInput-a.message > ConditionalRouter-r.input_text",
        "ConditionalRouter-r.true_result > Prompt-y.it",
        "ConditionalRouter-r.false_result > Prompt-n.it",
        "Prompt-y.prompt > ChatOutput-z.input_value",
        "Prompt-n.prompt > ChatOutput-z.input_value",
    ]
    prompts = component("Prompt-y", template="yes {it}"), component("Prompt-n", template="no {it}")
    assert await run(World(), between(router, *prompts, links=links)) == {"message": f"{expected} Hello"}


async def test_a_router_compares_numbers_and_sends_its_own_messages() -> None:
    router = component(
        "ConditionalRouter-r", operator="greater than", match_text="5", true_case_message="many", false_case_message="few"
    )
    export = written(
        component("ChatInput-a"), router, component("ChatOutput-y"), component("ChatOutput-n"),
        links=[
            "ChatInput-a.message > ConditionalRouter-r.input_text",
            "ConditionalRouter-r.true_result > ChatOutput-y.input_value",
            "ConditionalRouter-r.false_result > ChatOutput-n.input_value",
        ],
    )  # fmt: skip
    assert await run(World(), export, {"input_value": " 12.5"}) == {"ChatOutput-y": "many"}
    assert await run(World(), export, {"input_value": "3"}) == {"ChatOutput-n": "few"}
    assert await run(World(), export, {"input_value": "none"}) == {"ChatOutput-n": "few"}


@pytest.mark.parametrize(("category", "expected"), [("Praise", "Thanks!"), ("Blame", "Hello"), ("NONE", "else Hello")])
async def test_a_model_chooses_the_way_of_a_text(category: str, expected: str) -> None:
    routes = [
        {"route_category": "Praise", "route_description": "Kind words.", "output_value": "Thanks!"},
        {"route_category": "Blame", "route_description": "", "output_value": ""},
    ]
    links = [
        "ChatInput-a.message > SmartRouter-r.input_text",
        "SmartRouter-r.category_1_result > ChatOutput-z.input_value",
        "SmartRouter-r.category_2_result > ChatOutput-z.input_value",
        "SmartRouter-r.default_result > Prompt-e.it",
        "Prompt-e.prompt > ChatOutput-z.input_value",
    ]
    world = World()
    world.generator.script = [category]
    export = between(component("SmartRouter-r", routes=routes), component("Prompt-e", template="else {it}"), links=links)
    assert await run(world, export) == {"message": expected}
    (request,) = world.generator.requests
    assert request.form is not None
    assert request.form.value == ("Praise", "Blame", "NONE")
    assert "- Praise: Kind words." in request.system


def test_a_circle_is_told_with_what_stands_for_it_here() -> None:
    export = between(
        component("Prompt-p", template="{a}{b}"), component("ConditionalRouter-r", input_text=""),
        links=[
            "ChatInput-a.message > Prompt-p.a", "Prompt-p.prompt > ConditionalRouter-r.input_text",
            "ConditionalRouter-r.false_result > Prompt-p.b", "ConditionalRouter-r.true_result > ChatOutput-z.input_value",
        ],
    )  # fmt: skip
    assert ("edges" in {field for _, field in told(export)}) is True


LOOP = [
    "StructuredOutput-s.dataframe_output > LoopComponent-l.data",
    "LoopComponent-l.item > parser-i.input_data",
    "parser-i.parsed_text > Prompt-p.row",
    "ChatInput-a.message > Prompt-p.said",
    "ChatInput-a.message > StructuredOutput-s.input_value",
    "Prompt-p.prompt > OpenAIModel-m.input_value",
    "OpenAIModel-m.text_output > LoopComponent-l.*item",
    "LoopComponent-l.done > parser-o.input_data",
    "parser-o.parsed_text > ChatOutput-z.input_value",
]


def looping(*more: str) -> dict[str, Any]:
    return between(
        component("StructuredOutput-s", output_schema=[{"name": "x", "type": "int"}]),
        component("LoopComponent-l"), component("parser-i", pattern="{x}"), component("Prompt-p", template="{said} {row}"),
        component("OpenAIModel-m"), component("parser-o", pattern="<{text}>", sep=""),
        links=[*LOOP, *more],
    )  # fmt: skip


async def test_a_loop_runs_its_body_for_each_item_and_keeps_their_order() -> None:
    world = World()

    def said(request: Any) -> str:
        return '{"objects": [{"x": 1}, {"x": 2}, {"x": 3}]}' if request.form else f"[{request.prompt}]"

    world.generator.script = said
    assert await run(world, looping()) == {"message": "<[Hello 1]><[Hello 2]><[Hello 3]>"}


def test_a_loop_whose_inside_feeds_the_outside_is_refused() -> None:
    assert ("LoopComponent-l", "item") in told(looping("Prompt-p.prompt > ChatOutput-z.input_value"))


async def test_a_batch_asks_a_model_for_each_row() -> None:
    batch = component("BatchRunComponent-b", system_message="Shout.", column_name="text")
    links = [
        "FAISS-s.dataframe > BatchRunComponent-b.df",
        "OpenAIModel-m.model_output > BatchRunComponent-b.model",
        "BatchRunComponent-b.batch_results > parser-p.input_data",
        "ChatInput-a.message > FAISS-s.search_query",
        "parser-p.parsed_text > ChatOutput-z.input_value",
    ]
    world = World()
    world.generator.script = lambda request: request.prompt.upper()
    parser = component("parser-p", pattern="{model_response}", sep="; ")
    export = between(
        component("FAISS-s", search_query=""), component("OpenAIModel-m", temperature=0), batch, parser, links=links
    )
    assert await run(world, export) == {"message": "PASSAGE 1; PASSAGE 2"}
    assert {request.system for request in world.generator.requests} == {"Shout."}


async def test_another_flow_is_run_by_its_name() -> None:
    world = World()
    world.subflows.documents["my-helper"] = json.dumps(
        imported(between(links=["ChatInput-a.message > ChatOutput-z.input_value"])).document
    )
    links = ["ChatInput-a.message > RunFlow-r.ChatInput-x~input_value", "RunFlow-r.text > ChatOutput-z.input_value"]
    export = between(component("RunFlow-r", flow_name_selected="My Helper"), links=links)
    assert await run(world, export, {"input_value": "Hi"}) == {"message": "Hi"}


async def test_who_listens_is_given_what_the_one_who_notifies_had() -> None:
    links = ["ChatInput-a.message > Notify-n.input_value", "Listen-l.data > ChatOutput-z.input_value"]
    export = between(component("Notify-n", context_key="k"), component("Listen-l", context_key="k"), links=links)
    assert await run(World(), export) == {"message": "Hello"}


async def test_texts_are_combined_and_data_become_text() -> None:
    links = [
        "ChatInput-a.message > MessagetoData-d.message",
        "MessagetoData-d.data > ParseData-p.data",
        "ParseData-p.text > CombineText-c.text1",
        "CombineText-c.combined_text > ChatOutput-z.input_value",
    ]
    parts = (
        component("MessagetoData-d"),
        component("ParseData-p", template="<{text}>"),
        component("CombineText-c", text2="!", delimiter=" "),
    )
    assert await run(World(), between(*parts, links=links)) == {"message": "<Hello> !"}


async def test_a_path_of_a_query_finds_a_part_of_json() -> None:
    links = [
        "Webhook-w.output_data > ParseJSONData-j.input_value",
        "ParseJSONData-j.filtered_data > TypeConverterComponent-t.input_data",
        "TypeConverterComponent-t.message_output > ChatOutput-z.input_value",
    ]
    parts = component("Webhook-w"), component("ParseJSONData-j", query=".items[1].name"), component("TypeConverterComponent-t")
    export = written(*parts, CHAT[1], links=links)
    assert await run(World(), export, {"data": {"items": [{}, {"name": "Ada"}]}}) == {"message": "Ada"}
    with pytest.raises(FailedPrecondition):
        await run(World(), export, {"data": {}})
    export["data"]["nodes"][1]["data"]["node"]["template"]["query"]["value"] = ".items | map(.name)"
    assert told(export) == [("ParseJSONData-j", "query")]


def test_a_variable_of_langflow_is_named_and_its_value_is_nowhere() -> None:
    prompt = component("Prompt-p", template="{key}", key={"value": "COMPANY", "load_from_db": True})
    made = imported(between(prompt, links=["Prompt-p.prompt > ChatOutput-z.input_value"]))
    named = [params for params in nodes_of(made, "input") if "variable" in params]
    assert named == [{"name": "Prompt-p-key", "type": "text", "required": False, "variable": "COMPANY"}]
    origin = next(each for each in made.document["origin"]["components"] if each["id"] == "Prompt-p")
    assert origin["variables"] == {"key": "COMPANY"}


def test_a_flow_without_outputs_returns_what_nothing_takes_from() -> None:
    export = written(CHAT[0], component("Prompt-p", template="{q}?"), links=["ChatInput-a.message > Prompt-p.q"])
    made = imported(export)
    assert [node["name"] for node in nodes_of(made, "output")] == ["Prompt-p"]
    assert {each["role"] for each in made.document["origin"]["components"]} == {"chat_input", "data_output"}
