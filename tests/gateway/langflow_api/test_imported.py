"""Flows that LangFlow exported, kept and run by its own API."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.langflow.written import EXPORTS, component, export_of, written
from tests.gateway.langflow_api.asking import ask, post, said
from tests.gateway.langflow_api.flows import ANSWER, json_events, sse_events
from tests.gateway.serving import Stack, serving

NEEDS_MORE = {"1.2.0-loop-template": "ArXivComponent"}
"""The exports that are not imported, and the component that they are refused for."""


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Stack]:
    async with serving(tmp_path) as running:
        running.generation.words = ANSWER
        yield running


def chatting(**about: Any) -> dict[str, Any]:
    """ChatInput -> Prompt -> OpenAIModel -> ChatOutput, the model's instructions in a global variable."""
    persona = {"type": "str", "value": "PERSONA", "load_from_db": True}
    return written(
        component("ChatInput-a", display_name="Chat Input", input_value="hello", sender_name="User"),
        component(
            "Prompt-b", display_name="Prompt", template="Q: {question}", node={"custom_fields": {"template": ["question"]}}
        ),
        component("OpenAIModel-d", display_name="OpenAI", system_message=persona, temperature=0.1, max_tokens=0),
        component("ChatOutput-c", display_name="Chat Output", sender_name="AI"),
        links=[
            "ChatInput-a.message > Prompt-b.question",
            "Prompt-b.prompt > OpenAIModel-d.input_value",
            "OpenAIModel-d.text_output > ChatOutput-c.input_value",
        ],
        **about,
    )


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
async def test_a_real_export_is_kept_and_answers(bare: Stack, path: Path) -> None:
    status, kept = await post(bare, "/api/v1/flows/", json.loads(path.read_text()))
    if path.stem in NEEDS_MORE:
        assert (status, NEEDS_MORE[path.stem] in kept["detail"]) == (400, True)
        return
    assert status == 201, kept
    run = f"/api/v1/run/{kept['id']}"
    for body in ({"input_value": "hi"}, {"input_value": "hi", "output_type": "debug"}):
        status, answer = await post(bare, run, body)
        assert status in (200, 500), answer
        if status == 500:
            assert json.loads(answer["detail"])["message"].startswith("Error running graph: Error building Component ")
            return
        assert answer["session_id"] == kept["id"]
    components = {each["component_id"] for each in answer["outputs"][0]["outputs"]}
    _, streamed = await post(bare, f"{run}?stream=true", {"input_value": "hi"})
    assert json_events(streamed)[-1]["event"] == "end"
    _, events = await post(bare, "/api/v2/workflows", {"flow_id": kept["id"], "input_value": "hi", "mode": "stream"})
    told = [event["data"]["build_data"]["id"] for _, event in sse_events(events) if event["event"] == "end_vertex"]
    assert len(told) == len(set(told))
    assert components <= set(told)


async def test_an_imported_flow_streams_remembers_and_takes_tweaks_and_variables(bare: Stack) -> None:
    status, kept = await post(bare, "/api/v1/flows/", chatting(endpoint_name="Support"))
    assert (status, kept["endpoint_name"], len(kept["id"])) == (201, "Support", 36)
    variable = {"X_LANGFLOW_GLOBAL_VAR_PERSONA": "Be brief."}
    status, answer = await post(bare, "/api/v1/run/Support", {"input_value": "hi"}, **variable)
    assert (status, said(answer)) == (200, "".join(ANSWER))
    (result,) = answer["outputs"][0]["outputs"]
    assert result["results"]["message"]["properties"]["source"]["display_name"] == "OpenAI"
    asked = bare.generation.requests[-1].messages
    assert [each.content for each in asked] == ["Be brief.", "Q: hi"]
    tweaks = {"OpenAI": {"system_message": "Be kind.", "temperature": 0.9}, "Prompt-b": {"template": "P {question}"}}
    await post(bare, "/api/v1/run/Support", {"input_value": "hi", "tweaks": tweaks}, **variable)
    assert [each.content for each in bare.generation.requests[-1].messages] == ["Be kind.", "P hi"]
    assert bare.generation.requests[-1].sampling.temperature == pytest.approx(0.9)
    _, streamed = await post(bare, "/api/v1/run/Support?stream=true", {"input_value": "hi"}, **variable)
    kinds = [event["event"] for event in json_events(streamed)]
    assert kinds == ["add_message", "add_message", *["token"] * len(ANSWER), "add_message", "add_message", "end"]
    status, answer = await post(bare, "/api/v1/run/Support", {"input_value": "hi"})
    assert (status, "PERSONA" in answer["detail"]) == (500, True), "the variable is set nowhere"


async def test_an_uploaded_file_replaces_the_flow_that_has_its_id(bare: Stack) -> None:
    first = chatting(id="0b8d5a3e-0000-4000-8000-000000000001", endpoint_name="one")
    body, kind = _form(json.dumps({"flows": [first, chatting(name="Two")]}))
    async with bare.http.post(f"{bare.url}/api/v1/flows/upload/", data=body, headers={"content-type": kind}) as response:
        assert response.status == 201
        assert [flow["name"] for flow in await response.json()] == ["Made Up", "Two"]
    first["name"] = "Changed"
    status, kept = await post(bare, "/api/v1/flows/upload/", first)
    assert (status, [flow["id"] for flow in kept]) == (201, [first["id"]])
    _, listed = await ask(bare, "GET", "/api/v1/flows/")
    assert sorted(flow["name"] for flow in listed) == ["Changed", "Two"]
    assert (await ask(bare, "GET", f"/api/v1/flows/{first['id']}"))[1]["name"] == "Changed"


async def test_flows_of_one_name_are_kept_under_names_of_their_own(bare: Stack) -> None:
    names = [
        (await post(bare, "/api/v1/flows/", chatting(name=f"Twin {number}", endpoint_name="twin")))[0] for number in range(3)
    ]
    assert names == [201, 201, 201]
    listed = await bare.flows.ListFlows(_list())
    assert [flow.name for flow in listed.flows] == ["flows/twin", "flows/twin-2", "flows/twin-3"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{bad", 422), (b"", 422), ([], 422), ({}, 422), ({"data": []}, 422), ({"data": {"nodes": [], "edges": []}}, 400),
        (written(component("Unheard-a"), links=[]), 400),
    ],
)  # fmt: skip
async def test_what_cannot_be_imported_is_refused(bare: Stack, body: Any, status: int) -> None:
    answered, answer = await post(bare, "/api/v1/flows/", body)
    assert answered == status, answer
    if isinstance(body, dict) and body.get("data", {}):
        assert answer["detail"]
    assert (await ask(bare, "GET", "/api/v1/flows/"))[1] == []


async def test_an_edited_component_is_refused_by_name(bare: Stack) -> None:
    export = export_of("1.13.0-basic-prompting")
    node = next(each for each in export["data"]["nodes"] if each["data"]["type"] == "ChatInput")
    node["data"]["node"]["template"]["code"]["value"] += "\nraise SystemExit\n"
    status, answer = await post(bare, "/api/v1/flows/", export)
    assert (status, node["id"] in answer["detail"]) == (400, True)


def _form(text: str) -> tuple[bytes, str]:
    head = 'Content-Disposition: form-data; name="file"; filename="flows.json"\r\nContent-Type: application/json'
    return f"--b\r\n{head}\r\n\r\n{text}\r\n--b--\r\n".encode(), "multipart/form-data; boundary=b"


def _list() -> Any:
    from penstock.flow.v1 import flow_pb2

    return flow_pb2.ListFlowsRequest()
