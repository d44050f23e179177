"""The same requests to a LangFlow server and to ours, their answers compared field by field.

LangFlow 1.13 is 1.8 GB in an environment of its own, so it is only asked where one runs already:

    langflow run --backend-only --port 7860   # LANGFLOW_AUTO_LOGIN=false, a key made at POST /api/v1/api_key/
    export PENSTOCK_TEST_LANGFLOW=http://127.0.0.1:7860 PENSTOCK_TEST_LANGFLOW_KEY=sk-...
    pytest tests/gateway/langflow_api/test_beside_langflow.py
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.langflow.written import export_of
from tests.gateway.langflow_api.flows import json_events, same, sse_events
from tests.gateway.serving import Stack, serving

URL, KEY = os.environ.get("PENSTOCK_TEST_LANGFLOW", ""), os.environ.get("PENSTOCK_TEST_LANGFLOW_KEY", "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not URL, reason="no LangFlow server is told: set PENSTOCK_TEST_LANGFLOW and PENSTOCK_TEST_LANGFLOW_KEY"),
]

RUN, NOBODY = "/api/v1/run/{flow}", "00000000-0000-0000-0000-000000000001"
CASES: dict[str, tuple[str, str, Any]] = {
    "run": ("POST", RUN, {"input_value": "hi", "session_id": "s"}),
    "run without a body": ("POST", RUN, None),
    "run with an empty body": ("POST", RUN, {}),
    "run with a field too many": ("POST", RUN, {"input_value": "hi", "more": 1}),
    "run by text": ("POST", RUN, {"input_value": "hi", "input_type": "text"}),
    "any output": ("POST", RUN, {"input_value": "hi", "output_type": "any"}),
    "text output": ("POST", RUN, {"input_value": "hi", "output_type": "text"}),
    "debug": ("POST", RUN, {"input_value": "hi", "output_type": "debug"}),
    "one component": ("POST", RUN, {"input_value": "hi", "output_component": "Chat Output"}),
    "an inner component": ("POST", RUN, {"input_value": "hi", "output_component": "Prompt-t2oaK"}),
    "no such component": ("POST", RUN, {"input_value": "hi", "output_component": "nobody"}),
    "stream": ("POST", f"{RUN}?stream=true", {"input_value": "hi"}),
    "stream, perhaps": ("POST", f"{RUN}?stream=maybe", {"input_value": "hi"}),
    "tweak by id": ("POST", RUN, {"input_value": "hi", "tweaks": {"Prompt-t2oaK": {"template": "T: {question}"}}}),
    "tweak for all": ("POST", RUN, {"input_value": "hi", "tweaks": {"template": "A: {question}"}}),
    "tweak of the input": ("POST", RUN, {"tweaks": {"ChatInput-b6UCc": {"input_value": "x"}}}),
    "tweak that is nobody's": ("POST", RUN, {"input_value": "hi", "tweaks": {"nobody": {"a": 1}, "b": 2}}),
    "tweak of the code": ("POST", RUN, {"tweaks": {"Chat Input": {"code": "x"}}}),
    "tweak of the code, streamed": ("POST", f"{RUN}?stream=true", {"tweaks": {"code": "x"}}),
    "input twice": ("POST", RUN, {"input_value": "a", "tweaks": {"Chat Input": {"input_value": "b"}}}),
    "input twice, streamed": ("POST", f"{RUN}?stream=true", {"input_value": "", "tweaks": {"Chat Input": {"input_value": ""}}}),
    "unknown flow": ("POST", f"/api/v1/run/{NOBODY}", {}),
    "wrong method": ("GET", RUN, None),
    "advanced": ("POST", "/api/v1/run/advanced/{flow}", {"inputs": [{"components": ["ChatInput-b6UCc"], "input_value": "a"}]}),
    "advanced without inputs": ("POST", "/api/v1/run/advanced/{flow}", {}),
    "webhook": ("POST", "/api/v1/webhook/{flow}", {"a": 1}),
    "webhook without a body": ("POST", "/api/v1/webhook/{flow}", None),
    "workflow": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "input_value": "hi", "globals": {"A": "b"}}),
    "workflow of an output": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "output_ids": ["ChatOutput-yK0AU"]}),
    "workflow of no output": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "output_ids": ["nobody"]}),
    "workflow of no flow": ("POST", "/api/v2/workflows", {"flow_id": NOBODY}),
    "workflow with a field too many": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "more": 1}),
    "workflow in morse": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "mode": "stream", "stream_protocol": "morse"}),
    "workflow with a protected tweak": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "tweaks": {"code": "x"}}),
    "workflow, streamed": ("POST", "/api/v2/workflows", {"flow_id": "{flow}", "input_value": "hi", "mode": "stream"}),
    "workflow in AG-UI": (
        "POST", "/api/v2/workflows", {"flow_id": "{flow}", "input_value": "hi", "mode": "stream", "stream_protocol": "agui"},
    ),
    "workflow without its graph": (
        "POST", "/api/v2/workflows", {"flow_id": "{flow}", "input_value": "hi", "mode": "stream", "expose_graph_state": False},
    ),
    "no job": ("GET", "/api/v2/workflows", None),
    "a job of no UUID": ("GET", "/api/v2/workflows?job_id=nobody", None),
    "an unknown job": ("GET", f"/api/v2/workflows?job_id={NOBODY}", None),
    "the events of none": ("GET", f"/api/v2/workflows/{NOBODY}/events", None),
    "stopping none": ("POST", "/api/v2/workflows/stop", {"job_id": NOBODY}),
    "a response": ("POST", "/api/v1/responses", {"model": "{flow}", "input": "hi"}),
    "a response of no model": ("POST", "/api/v1/responses", {"model": "nobody", "input": "hi"}),
    "a response without a model": ("POST", "/api/v1/responses", {"input": "hi"}),
    "a response with tools": ("POST", "/api/v1/responses", {"model": "{flow}", "input": "hi", "tools": []}),
    "messages of no flow": ("GET", f"/api/v1/monitor/messages?flow_id={NOBODY}", None),
    "messages in no order": ("GET", "/api/v1/monitor/messages?order=up", None),
    "forgetting no session": ("DELETE", "/api/v1/monitor/messages/sessions", []),
    "the version": ("GET", "/api/v1/version", None),
    "the health": ("GET", "/health_check", None),
    "a flow that is not there": ("GET", f"/api/v1/flows/{NOBODY}", None),
}  # fmt: skip


def exported() -> dict[str, Any]:
    """ChatInput -> Prompt -> ChatOutput, of the components of a real export."""
    export = export_of("1.13.0-basic-prompting")
    nodes = {node["data"]["type"]: node for node in export["data"]["nodes"] if node["type"] == "genericNode"}
    prompt = nodes["Prompt"]["data"]["node"]
    prompt["template"]["template"]["value"] = "Echo: {question}"
    prompt["custom_fields"] = {"template": ["question"]}
    field = {
        "type": "str",
        "name": "question",
        "display_name": "question",
        "value": "",
        "input_types": ["Message"],
        "show": True,
    }
    prompt["template"]["question"] = field
    nodes["ChatInput"]["data"]["node"]["template"]["input_value"]["value"] = ""
    fed = next(edge for edge in export["data"]["edges"] if edge["source"] == nodes["ChatInput"]["id"])
    answered = next(edge for edge in export["data"]["edges"] if edge["target"] == nodes["ChatOutput"]["id"])
    edges = [
        _edge(fed, target=nodes["Prompt"]["id"], field="question"),
        _edge(answered, source=nodes["Prompt"]["id"], output="prompt", kind="Prompt"),
    ]
    drawn = {"nodes": [nodes["ChatInput"], nodes["Prompt"], nodes["ChatOutput"]], "edges": edges, "viewport": {}}
    return {"name": "Beside", "description": "", "endpoint_name": "beside", "data": drawn}


def _edge(
    edge: dict[str, Any], *, target: str = "", field: str = "", source: str = "", output: str = "", kind: str = ""
) -> Any:
    handles = edge["data"]
    if target:
        handles["targetHandle"] |= {"id": target, "fieldName": field, "inputTypes": ["Message"], "type": "str"}
    if source:
        handles["sourceHandle"] |= {"id": source, "name": output, "dataType": kind, "output_types": ["Message"]}
    written = {side: json.dumps(handles[side], sort_keys=True).replace('"', "œ") for side in handles}
    return edge | written | {"source": handles["sourceHandle"]["id"], "target": handles["targetHandle"]["id"]}


class Beside:
    """Both servers with the same flow."""

    def __init__(self, ours: Stack, flow: str) -> None:
        self.ours = ours
        self.flow = flow

    async def ask(self, method: str, path: str, body: Any) -> tuple[Any, Any]:
        """The status and the answer of LangFlow's, and of ours."""
        path = path.replace("{flow}", self.flow)
        given = None if body is None else json.loads(json.dumps(body).replace("{flow}", self.flow))
        answers = []
        for url in (URL, self.ours.url):
            async with self.ours.http.request(method, f"{url}{path}", json=given, headers={"x-api-key": KEY}) as response:
                answers.append((response.status, _comparable(await response.text())))
        return answers[0], answers[1]


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    async with serving(tmp_path) as stack:
        kept = await _keep(stack.http, URL, exported())
        await _keep(stack.http, stack.url, exported() | {"id": kept})
        yield Beside(stack, kept)


@pytest.mark.parametrize("name", CASES)
async def test_ours_answers_as_langflow_does(beside: Beside, name: str) -> None:
    theirs, ours = await beside.ask(*CASES[name])
    assert ours == theirs


async def _keep(http: aiohttp.ClientSession, url: str, flow: dict[str, Any]) -> str:
    headers = {"x-api-key": KEY}
    async with http.delete(f"{url}/api/v1/flows/beside", headers=headers):
        pass
    async with http.get(f"{url}/api/v1/flows/?get_all=true&header_flows=true", headers=headers) as response:
        known = [each["id"] for each in await response.json() if each["endpoint_name"] == "beside"]
    for flow_id in known:
        async with http.delete(f"{url}/api/v1/flows/{flow_id}", headers=headers):
            pass
    async with http.post(f"{url}/api/v1/flows/", json=flow, headers=headers) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["id"])


def _comparable(text: str) -> Any:
    """An answer without what changes, and without the order in which LangFlow happens to list a flow's components."""
    for read in (json.loads, sse_events, json_events):
        try:
            answer = read(text)
        except (ValueError, AssertionError):
            continue
        if isinstance(answer, list):
            for event in answer:
                inner = event[1] if isinstance(event, tuple) else event
                if isinstance(inner, dict) and inner.get("event") == "vertices_sorted":
                    inner["data"]["to_run"].sort()
        return same(answer)
    return text
