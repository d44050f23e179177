"""Answers beside those that LangFlow itself gave to the same requests, field by field."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.langflow.written import component, written
from tests.gateway.langflow_api.flows import (
    ANSWER,
    MODEL_ID,
    TRIVIAL_ID,
    captured,
    json_events,
    keep,
    same,
    sse_events,
    trivial,
    with_model,
)
from tests.gateway.serving import Stack, serving

ENDS = (
    component("ChatInput-aaaaa", "ChatInput", display_name="Chat Input", input_value="", sender_name="User"),
    component("ChatOutput-ccccc", "ChatOutput", display_name="Chat Output", sender_name="AI"),
)


def _prompt(template: str) -> dict[str, Any]:
    made = {"outputs": [{"name": "prompt", "types": ["Message"]}], "custom_fields": {"template": ["question"]}}
    return component("Prompt Template-bbbbb", "Prompt Template", display_name="Prompt Template", node=made, template=template)


def _model() -> dict[str, Any]:
    node = {"icon": "OpenAI", "outputs": [{"name": "text_output", "types": ["Message"]}]}
    kind = "ext:openai:OpenAIModelComponent@official"
    return component("OpenAIModel-ddddd", kind, display_name="OpenAI", node=node, temperature=0.1)


def exports() -> dict[str, dict[str, Any]]:
    """The two flows as LangFlow exports them."""
    begun, ended = "ChatInput-aaaaa.message > Prompt Template-bbbbb.question", "ChatOutput-ccccc.input_value"
    about = {"description": "bench"}
    plain = written(
        ENDS[0], _prompt("Echo: {question}"), ENDS[1], links=[begun, f"Prompt Template-bbbbb.prompt > {ended}"],
        **about | {"id": TRIVIAL_ID, "name": "bench-trivial", "endpoint_name": "bench-trivial"},
    )  # fmt: skip
    asked = "Prompt Template-bbbbb.prompt > OpenAIModel-ddddd.input_value"
    model = written(
        ENDS[0], _prompt("Answer briefly: {question}"), ENDS[1], _model(),
        links=[begun, asked, f"OpenAIModel-ddddd.text_output > {ended}"],
        **about | {"id": MODEL_ID, "name": "bench-llm200", "endpoint_name": "bench-llm200"},
    )  # fmt: skip
    return {"trivial": plain, "chat": model}


@pytest.fixture(params=["documents", "exports"])
async def stack(request: Any, tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway with the two flows: as documents that tell all that can be told of an origin, and imported."""
    kept = exports() if request.param == "exports" else {"trivial": trivial(), "chat": with_model()}
    async with serving(tmp_path) as running:
        running.generation.words = ANSWER
        for name, flow in kept.items():
            await keep(running, name, flow)
        running.model = "default" if request.param == "exports" else "gpt-4o-mini"  # type: ignore[attr-defined]
        yield running


def expected_of(stack: Stack, name: str) -> str:
    """A captured body. The name of an imported flow's model is that of ours."""
    return captured(name).replace("gpt-4o-mini", stack.model)  # type: ignore[attr-defined]


CHAT = {"input_value": "hi there", "input_type": "chat", "output_type": "chat", "session_id": "ex1"}


async def post(stack: Stack, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"content-type": "application/json"} if data else {}
    async with stack.http.post(f"{stack.url}{path}", data=data, headers=given | headers) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("run", CHAT),
        ("run_empty", None),
        ("run_tweaks", CHAT | {"tweaks": {"Prompt Template-bbbbb": {"template": "TWEAKED: {question}"}}}),
        ("run_debug", {"input_value": "x", "output_type": "debug"}),
    ],
)
async def test_a_run(stack: Stack, name: str, body: Any) -> None:
    status, text = await post(stack, f"/api/v1/run/{TRIVIAL_ID}", body)
    assert (status, same(json.loads(text))) == (200, same(json.loads(captured(f"{name}.json"))))
    assert text.startswith('{"session_id":')


async def test_an_advanced_run(stack: Stack) -> None:
    one = {"inputs": [{"components": ["ChatInput-aaaaa"], "input_value": "adv", "type": "chat"}]}
    body = one | {"outputs": ["ChatOutput-ccccc"], "tweaks": {}, "stream": False, "session_id": None}
    status, text = await post(stack, f"/api/v1/run/advanced/{TRIVIAL_ID}", body)
    assert (status, same(json.loads(text))) == (200, same(json.loads(captured("advanced.json"))))


async def test_an_advanced_run_of_two_inputs_answers_each(stack: Stack) -> None:
    status, text = await post(
        stack, f"/api/v1/run/advanced/{TRIVIAL_ID}", {"inputs": [{"input_value": "one"}, {"input_value": "two"}]}
    )
    expected = captured("advanced_multi.json")
    first, second = json.loads(expected)["outputs"]
    corrected = json.loads(json.dumps(second).replace("Echo: one", "Echo: two"))
    assert (status, same(json.loads(text)["outputs"])) == (200, same([first, corrected]))


async def test_a_stream_without_a_model(stack: Stack) -> None:
    status, text = await post(stack, f"/api/v1/run/{TRIVIAL_ID}?stream=true", CHAT)
    assert (status, same(json_events(text))) == (200, same(json_events(captured("run_stream_trivial.txt") + "\n")))


async def test_a_stream_of_a_model_is_the_same_up_to_its_last_empty_tokens(stack: Stack) -> None:
    status, text = await post(stack, f"/api/v1/run/{MODEL_ID}?stream=true", CHAT)
    expected = [event for event in json_events(expected_of(stack, "run_stream.txt") + "\n") if event["data"].get("chunk") != ""]
    assert (status, same(json_events(text))) == (200, same(expected))


async def test_a_stream_is_framed_byte_by_byte_as_langflow_does(stack: Stack) -> None:
    _, text = await post(stack, f"/api/v1/run/{MODEL_ID}?stream=true", CHAT)
    ours, theirs = (
        [
            line.split('"id": ')[0]
            for line in body.split("\n\n")
            if line.startswith('{"event": "token"') and '"chunk": ""' not in line
        ]
        for body in (text, captured("run_stream.txt"))
    )
    assert ours == theirs
    for part in text.split("\n\n")[:-1]:
        assert json.dumps(json.loads(part)) == part


async def test_a_workflow(stack: Stack) -> None:
    body = {"flow_id": TRIVIAL_ID, "input_value": "v2 hi", "session_id": "v2s"}
    status, text = await post(stack, "/api/v2/workflows", body)
    assert (status, same(json.loads(text))) == (200, same(json.loads(captured("workflows_sync.json"))))


async def test_a_workflow_in_the_background(stack: Stack) -> None:
    body = {"flow_id": TRIVIAL_ID, "input_value": "bg", "mode": "background"}
    status, text = await post(stack, "/api/v2/workflows", body)
    job = json.loads(text)
    expected = captured("workflows_background.json")
    assert (status, same({**job, "links": 0})) == (200, same({**json.loads(expected), "links": 0}))
    assert job["links"] == {
        name: link.replace(json.loads(expected)["job_id"], job["job_id"])
        for name, link in json.loads(expected)["links"].items()
    }
    async with stack.http.get(f"{stack.url}{job['links']['events']}") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = sse_events(await response.text())
    theirs = sse_events(captured("workflows_events.txt"))
    for ours, expected_event in zip(_comparable(events), _comparable(theirs), strict=True):
        assert ours == expected_event
    async with stack.http.get(f"{stack.url}{job['links']['status']}") as response:
        assert (response.status, same(await response.json())) == (200, same(json.loads(captured("workflows_status.json"))))


async def test_a_workflow_as_a_stream_tells_the_same_of_every_component(stack: Stack) -> None:
    """LangFlow streams no token of a model that is not set to; tokens come here between two of its events."""
    body = {"flow_id": MODEL_ID, "input_value": "v2 hi", "mode": "stream"}
    status, text = await post(stack, "/api/v2/workflows", body)
    ours, theirs = sse_events(text), sse_events(captured("workflows_stream.txt"))
    assert [number for number, _ in ours] == list(range(len(ours)))
    told = [event["event"] for _, event in ours if event["event"] != "token"]
    told.remove("add_message")  # The one that begins the tokens.
    names = [event["event"] for _, event in theirs]
    assert (status, sorted(told)) == (200, sorted(names))
    assert told[:2] == names[:2]
    assert told[-3:] == names[-3:]
    finished = {event["data"]["build_data"]["id"]: event["data"] for _, event in ours if event["event"] == "end_vertex"}
    for _, event in theirs:
        if event["event"] == "end_vertex":
            mine = finished[event["data"]["build_data"]["id"]]
            assert mine.keys() == event["data"].keys()
            assert mine["output_meta"] == event["data"]["output_meta"]
            assert mine["build_data"].keys() == event["data"]["build_data"].keys()
            assert mine["build_data"]["next_vertices_ids"] == event["data"]["build_data"]["next_vertices_ids"]
            assert mine["build_data"]["data"].keys() == event["data"]["build_data"]["data"].keys()


async def test_a_workflow_in_agui(stack: Stack) -> None:
    stack.generation.words = ("".join(stack.generation.words),)
    body = {"flow_id": MODEL_ID, "input_value": "v2 hi", "mode": "stream", "stream_protocol": "agui"}
    status, text = await post(stack, "/api/v2/workflows", body)
    assert (status, same(sse_events(text))) == (200, same(sse_events(captured("workflows_agui.txt"))))
    kinds = [event["type"] for _, event in sse_events(text)]
    assert kinds == [event["type"] for _, event in sse_events(captured("workflows_agui.txt"))]


async def test_a_response(stack: Stack) -> None:
    status, text = await post(stack, "/api/v1/responses", {"model": TRIVIAL_ID, "input": "hello"})
    assert (status, same(json.loads(text))) == (200, same(json.loads(captured("responses.json"))))


async def test_a_response_as_a_stream(stack: Stack) -> None:
    status, text = await post(stack, "/api/v1/responses", {"model": MODEL_ID, "input": "hello", "stream": True})
    assert status == 200
    ours, theirs = (
        [same(json.loads(line.removeprefix("data: "))) for line in body.splitlines() if line.startswith("data: {")]
        for body in (text, captured("responses_stream.txt"))
    )
    assert ours == theirs
    assert text.endswith("\n\ndata: [DONE]\n\n")
    assert "\n\nevent: response.completed\ndata: {" in text


async def test_messages_and_flows(stack: Stack) -> None:
    await post(stack, f"/api/v1/run/{MODEL_ID}?stream=true", CHAT)
    async with stack.http.get(f"{stack.url}/api/v1/monitor/messages?flow_id={MODEL_ID}&session_id=ex1") as response:
        assert (response.status, same(await response.json())) == (200, same(json.loads(expected_of(stack, "messages.json"))))
    async with stack.http.get(f"{stack.url}/api/v1/monitor/messages/sessions") as response:
        assert (response.status, await response.json()) == (200, ["ex1"])
    async with stack.http.get(f"{stack.url}/api/v1/flows/") as response:
        listed = {flow["name"]: flow for flow in await response.json()}
    for theirs in json.loads(captured("flows.json")):
        if theirs["name"] in listed:
            mine = listed[theirs["name"]]
            assert mine["id"] == theirs["id"]
            assert same(mine) | {"folder_id": ""} == same(theirs) | {"folder_id": ""}
    assert set(listed) == {"bench-trivial", "bench-llm200"}


async def test_what_is_asked_of_a_server(stack: Stack) -> None:
    expected = {
        "/health": {"status": "ok"},
        "/health_check": {"status": "ok", "chat": "ok", "db": "ok"},
        "/healthz": {"status": "ok", "chat": "ok", "db": "ok"},
        "/api/v1/version": {"version": "1.13.0", "main_version": "1.13.0", "package": "Langflow"},
    }
    for path, answer in expected.items():
        async with stack.http.get(f"{stack.url}{path}") as response:
            assert (path, response.status, await response.json()) == (path, 200, answer)
    async with stack.http.get(f"{stack.url}/api/v1/config") as response:
        config, theirs = await response.json(), json.loads(captured("config.json"))
    assert {key: type(value) for key, value in config.items()} == {key: type(value) for key, value in theirs.items()}


def _comparable(events: list[tuple[int, dict[str, Any]]]) -> list[Any]:
    """Events without the order in which LangFlow happens to list a flow's components."""
    for _, event in events:
        if event["event"] == "vertices_sorted":
            event["data"]["to_run"].sort()
    return [[number, same(event)] for number, event in events]
