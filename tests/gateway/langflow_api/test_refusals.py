"""What is not run, and what fails, in LangFlow's words."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ModelNotFound, Overloaded
from tests.gateway.fakes import document, node
from tests.gateway.langflow_api.asking import ask, post
from tests.gateway.langflow_api.flows import MODEL_ID, TRIVIAL_ID, json_events, keep, sse_events, trivial, with_model
from tests.gateway.serving import Stack, serving

NO_KEY = (403, {"detail": "An API key must be passed as query or header"})
WRONG_KEY = (403, {"detail": "Invalid or missing API key"})
RUN = f"/api/v1/run/{TRIVIAL_ID}"


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway with two keys: "reader" may run flows, "writer" may keep them."""
    entries = [
        {"name": name, "key_sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
        for name, scopes in (("reader", ["read"]), ("writer", ["write"]), ("other", ["read"]))
    ]
    (tmp_path / "keys.json").write_text(json.dumps(entries))
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "trivial.json").write_text(json.dumps(trivial()))
    async with serving(tmp_path, api_keys_file=tmp_path / "keys.json", flows_dir=tmp_path / "flows") as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", RUN, {"input_value": "x"}),
        ("POST", f"{RUN}?stream=true", {"input_value": "x"}),
        ("POST", RUN, {"input_value": 1}),
        ("POST", RUN, {"tweaks": {"code": "x"}}),
        ("POST", "/api/v1/run/nobody", {}),
        ("POST", f"/api/v1/run/advanced/{TRIVIAL_ID}", {}),
        ("POST", f"/api/v1/webhook/{TRIVIAL_ID}", {"a": 1}),
        ("POST", "/api/v1/webhook/nobody", {"a": 1}),
        ("POST", "/api/v2/workflows", {"flow_id": TRIVIAL_ID}),
        ("POST", "/api/v2/workflows", {"flow_id": TRIVIAL_ID, "mode": "background"}),
        ("POST", "/api/v2/workflows", {"flow_id": "nobody"}),
        ("GET", "/api/v2/workflows?job_id=x", None),
        ("GET", "/api/v2/workflows/x/events", None),
        ("POST", "/api/v2/workflows/stop", {"job_id": "x"}),
        ("POST", "/api/v1/responses", {"model": "nobody", "input": "x"}),
        ("GET", "/api/v1/flows/", None),
        ("GET", "/api/v1/flows/trivial", None),
        ("DELETE", "/api/v1/flows/trivial", None),
        ("GET", "/api/v1/monitor/messages", None),
        ("GET", "/api/v1/monitor/messages/sessions", None),
        ("DELETE", "/api/v1/monitor/messages", ["a"]),
        ("DELETE", "/api/v1/monitor/messages/session/a", None),
        ("DELETE", "/api/v1/monitor/messages/sessions", ["a"]),
    ],
)
async def test_a_stranger_is_told_that_a_key_is_needed_and_nothing_else(
    locked: Stack, method: str, path: str, body: Any
) -> None:
    assert await ask(locked, method, path, body) == NO_KEY
    assert await ask(locked, method, path, body, x_api_key="wrong") == WRONG_KEY
    assert await ask(locked, method, path, body, authorization="Bearer reader") == NO_KEY


async def test_a_key_is_read_from_the_header_and_from_the_query(locked: Stack) -> None:
    for path, headers in ((RUN, {"x_api_key": "reader"}), (f"{RUN}?x-api-key=reader", {})):
        status, answer = await post(locked, path, {"input_value": "x"}, **headers)
        assert (status, answer["session_id"]) == (200, TRIVIAL_ID)
    made_up = await post(locked, RUN, {}, x_api_key="reader", authorization="Bearer made-up")
    assert made_up[0] == 200, "what a client puts into authorization is passed over"


async def test_a_key_needs_the_scope(locked: Stack) -> None:
    status, answer = await post(locked, RUN, {}, x_api_key="writer")
    assert (status, "scope 'read'" in answer["detail"]) == (403, True)
    status, answer = await ask(locked, "DELETE", f"/api/v1/flows/{TRIVIAL_ID}", x_api_key="reader")
    assert (status, "scope 'write'" in answer["detail"]) == (403, True)


async def test_jobs_and_messages_are_their_callers_alone(locked: Stack) -> None:
    body = {"flow_id": TRIVIAL_ID, "input_value": "x", "mode": "background"}
    _, job = await post(locked, "/api/v2/workflows", body, x_api_key="reader")
    status, events = await ask(locked, "GET", job["links"]["events"], x_api_key="reader")
    assert (status, sse_events(events)[-1][1]["event"]) == (200, "end")
    for key, expected in (("reader", 200), ("other", 404)):
        assert (await ask(locked, "GET", job["links"]["status"], x_api_key=key))[0] == expected
        assert (await ask(locked, "GET", job["links"]["events"], x_api_key=key))[0] == expected
        assert (await post(locked, job["links"]["stop"], {"job_id": job["job_id"]}, x_api_key=key))[0] == expected
    _, sessions = await ask(locked, "GET", "/api/v1/monitor/messages/sessions", x_api_key="reader")
    _, others = await ask(locked, "GET", "/api/v1/monitor/messages/sessions", x_api_key="other")
    assert (sessions, others) == ([TRIVIAL_ID], [])
    assert (await ask(locked, "DELETE", f"/api/v1/monitor/messages/session/{TRIVIAL_ID}", x_api_key="other"))[0] == 204
    assert (await ask(locked, "GET", "/api/v1/monitor/messages/sessions", x_api_key="reader"))[1] == [TRIVIAL_ID]


@pytest.mark.parametrize("name", ["nope", "00000000-0000-0000-0000-000000000001", "No%20such%2Fflow", "%00", "a" * 300])
async def test_a_flow_that_is_not_there(stack: Stack, name: str) -> None:
    status, answer = await post(stack, f"/api/v1/run/{name}", {"input_value": "x"})
    assert status == 404
    if "%" not in name and len(name) < 256:
        assert answer == {"detail": f"Flow identifier {name} not found"}
    status, answer = await post(stack, "/api/v1/responses", {"model": "nope", "input": "x"})
    error = {"message": "Flow with id 'nope' not found", "type": "invalid_request_error", "code": "flow_not_found"}
    assert (status, answer) == (200, {"error": error})
    status, answer = await post(stack, "/api/v2/workflows", {"flow_id": "nope"})
    message = "Flow 'nope' does not exist. Verify the flow_id and try again."
    assert (status, answer["detail"]) == (
        404, {"error": "Flow not found", "code": "FLOW_NOT_FOUND", "message": message, "flow_id": "nope"},
    )  # fmt: skip


async def test_a_body_that_is_not_json(stack: Stack) -> None:
    status, answer = await post(stack, RUN, b"{bad")
    assert (status, answer) == (422, {"detail": [{"type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error"}]})
    for body in (b"\xff", b"[" * 100_000, b'{"input_value": NaN}', b'"\\ud800"', b"0" * 100_000):
        assert (await post(stack, RUN, body))[0] == 422


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        ({"input_value": 5}, ["body", "input_value"], "string_type"),
        ({"input_type": "voice"}, ["body", "input_type"], "literal_error"),
        ({"tweaks": []}, ["body", "tweaks"], "dict_type"),
        ({"session_id": "s" * 2000}, ["body", "session_id"], "string_too_long"),
        ([1], ["body"], "model_attributes_type"),
        ({"tweaks": {str(number): 1 for number in range(600)}}, ["body", "tweaks"], "too_long"),
    ],
)
async def test_a_field_that_is_wrong_is_named_and_its_value_is_not_repeated(
    stack: Stack, body: Any, loc: list[str], kind: str
) -> None:
    status, answer = await post(stack, RUN, body)
    assert (status, answer["detail"][0]["loc"], answer["detail"][0]["type"]) == (422, loc, kind)
    assert "voice" not in json.dumps(answer)


async def test_tweaks_that_are_refused(stack: Stack) -> None:
    refused = {
        "error": "Refused tweaks", "code": "TWEAKS_REFUSED",
        "message": "The field is protected and keeps the value set by the flow author.", "fields": ["code"],
    }  # fmt: skip
    for tweaks in ({"Prompt Template-bbbbb": {"code": "import os"}}, {"Chat Input": {"code": "x"}}, {"code": "x"}):
        assert await post(stack, RUN, {"tweaks": tweaks}) == (422, {"detail": refused})
    both = {"Prompt Template-bbbbb": {"template": "X {question}", "code": "x"}}
    assert (await post(stack, RUN, {"tweaks": both}))[0] == 422
    assert (await post(stack, "/api/v2/workflows", {"flow_id": TRIVIAL_ID, "tweaks": both}))[1] == {"detail": refused}


async def test_an_input_that_is_given_twice(stack: Stack) -> None:
    twice = "If you pass an input_value to the {} input, you cannot pass a tweak with the same name."
    for key in ("ChatInput-aaaaa", "Chat Input"):
        body = {"input_value": "a", "tweaks": {key: {"input_value": "b"}}}
        assert await post(stack, RUN, body) == (400, {"detail": twice.format("chat")})
    body = {"input_value": "a", "input_type": "text", "tweaks": {"TextInput-x": {"input_value": "b"}}}
    assert await post(stack, RUN, body) == (400, {"detail": twice.format("text")})
    once = {"tweaks": {"ChatInput-aaaaa": {"input_value": "b"}}}
    assert (await post(stack, RUN, once))[1]["outputs"][0]["outputs"][0]["artifacts"]["message"] == "Echo: b"


async def test_a_tweak_that_the_parameter_cannot_have_is_told(stack: Stack) -> None:
    tweaks = {"OpenAI": {"temperature": "hot"}}
    status, answer = await post(stack, f"/api/v1/run/{MODEL_ID}", {"input_value": "x", "tweaks": tweaks})
    assert (status, "temperature" in answer["detail"]) == (400, True)


async def test_a_component_that_fails(stack: Stack) -> None:
    async def fail(_: int) -> None:
        raise ModelNotFound("there is no model 'default'")

    stack.generation.before = fail
    message = "Error running graph: Error building Component OpenAI: "
    status, answer = await post(stack, f"/api/v1/run/{MODEL_ID}", {"input_value": "x"})
    said = json.loads(answer["detail"])
    assert (status, said.keys()) == (500, {"message", "traceback", "description", "code", "suggestion"})
    assert said["message"].startswith(message)
    assert "default" in said["message"]
    status, answer = await post(stack, f"/api/v1/run/{MODEL_ID}?stream=true", {"input_value": "x"})
    last = json_events(answer)[-1]
    assert (status, last["event"], last["data"]["error"].startswith(message)) == (200, "error", True)
    status, answer = await post(stack, "/api/v2/workflows", {"flow_id": MODEL_ID, "input_value": "x"})
    assert (status, answer["status"], answer["has_errors"], answer["output"]["reason"]) == (200, "failed", True, "failed")
    assert answer["errors"][0]["error"].startswith(message)
    for protocol, event in (("langflow", "error"), ("agui", "RUN_ERROR")):
        body = {"flow_id": MODEL_ID, "input_value": "x", "mode": "stream", "stream_protocol": protocol}
        told = [each for _, each in sse_events((await post(stack, "/api/v2/workflows", body))[1])]
        assert event in [each.get("event", each.get("type")) for each in told[-2:]]
    status, answer = await post(stack, "/api/v1/responses", {"model": MODEL_ID, "input": "x"})
    assert (status, answer["error"]["type"]) == (200, "processing_error")
    status, answer = await post(stack, "/api/v1/responses", {"model": MODEL_ID, "input": "x", "stream": True})
    assert '"finish_reason":"error"' in answer
    assert answer.endswith("data: [DONE]\n\n")


async def test_what_a_stream_is_refused_for_is_an_event_once_the_key_is_good(stack: Stack) -> None:
    status, answer = await post(stack, f"{RUN}?stream=true", {"tweaks": {"code": "x"}})
    (event,) = json_events(answer)
    assert (status, event["event"], "protected" in event["data"]["error"]) == (200, "error", True)


async def test_overload_and_lateness_have_statuses_of_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path, run_deadline_s=0.2) as stack:
        await keep(stack, "chat", with_model())
        stack.generation.before = lambda _: asyncio.sleep(5)
        assert (await post(stack, f"/api/v1/run/{MODEL_ID}", {"input_value": "x"}))[0] == 504
        status, answer = await post(stack, "/api/v2/workflows", {"flow_id": MODEL_ID, "input_value": "x"})
        assert (status, answer["detail"]["code"]) == (408, "EXECUTION_TIMEOUT")

        async def busy(_: int) -> None:
            raise Overloaded("no room", retry_after_s=3)

        stack.generation.before = busy
        async with stack.http.post(f"{stack.url}/api/v1/run/{MODEL_ID}", json={"input_value": "x"}) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "3")


async def test_a_page_of_another_site_cannot_run_a_flow(stack: Stack) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {"content-type": kind, "origin": "https://elsewhere.example"}
        async with stack.http.post(f"{stack.url}{RUN}", data=b"--x--", headers=headers) as response:
            assert response.status == 422


async def test_other_methods_and_paths(stack: Stack) -> None:
    assert await ask(stack, "GET", RUN) == (405, {"detail": "Method Not Allowed"})
    for path in ("/api/v1/run/", "/api/v1/run/a/b/c", "/api/v1/unknown", "/api/v2/workflows//events"):
        assert (await post(stack, path, {}))[0] in (404, 405)
    async with stack.http.head(f"{stack.url}/api/v1/version") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_a_flow_that_lets_nobody_tweak_says_so(stack: Stack) -> None:
    closed = document(node("q", "input"), node("m", "generate"), node("a", "output"), edges=["q > m", "m > a"])
    await keep(stack, "closed", json.loads(closed))
    status, answer = await post(stack, "/api/v1/run/closed", {"input_value": "x", "tweaks": {"m": {"max_tokens": 3}}})
    assert (status, answer["detail"]["code"], answer["detail"]["fields"]) == (422, "TWEAKS_REFUSED", ["max_tokens"])
