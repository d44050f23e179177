"""Requests that nobody would write: none is a failure of ours, and every answer is as the OpenAPI document says."""

import asyncio
import copy
import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.core.failures import FailureGroup

from tests.gateway.serving import Stack

CHECKS = (checks.not_a_server_error, checks.content_type_conformance, checks.response_schema_conformance)
OWN = ("/v1/chat/completions", "/v1/responses", "/v1/models")
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {
        "model": "echo",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "x", "content": "t"},
        ],
        "stream": False,
        "stream_options": {"include_usage": True},
        "n": 1,
        "temperature": 1,
        "stop": ["a"],
        "seed": 1,
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "auto",
        "metadata": {"session_id": "s"},
        "penstock": {"inputs": {}, "overrides": {}, "session": ""},
        "logit_bias": {},
    },
    "/v1/responses": {
        "model": "echo",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
            {"type": "function_call_output", "output": "x", "call_id": "c"},
        ],
        "instructions": "i",
        "previous_response_id": None,
        "text": {"format": {"type": "text"}},
        "tools": [],
        "store": True,
        "stream": False,
        "max_output_tokens": 5,
        "reasoning": {},
    },
}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["rag", "echo", "user", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = new
    return changed


@st.composite
def mutated(draw: Any) -> tuple[str, Any]:
    path = draw(st.sampled_from(sorted(BODIES)))
    body = BODIES[path]
    for _ in range(draw(st.integers(1, 3))):
        body = put(body, draw(st.sampled_from(places(body))), draw(ANYTHING))
    return path, body


@pytest.mark.slow
async def test_a_body_with_anything_anywhere_is_answered_or_refused(stack: Stack) -> None:
    loop = asyncio.get_running_loop()
    seen: set[int] = set()

    async def ask(path: str, body: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        async with asyncio.timeout(10), stack.http.post(f"{stack.url}{path}", data=body, headers=headers) as response:
            return response.status, await response.read()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(mutated())
    def asked(case: tuple[str, Any]) -> None:
        path, body = case
        written = json.dumps(body).encode()
        status, answer = asyncio.run_coroutine_threadsafe(ask(path, written), loop).result(20)
        seen.add(status)
        assert status in {200, 400, 404}, (status, answer, body)
        if status != 200:
            told = json.loads(answer)["error"]
            assert told.keys() == {"message", "type", "param", "code"}
            assert told["message"]

    await asyncio.to_thread(asked)
    assert seen >= {200, 400}


async def test_bytes_that_are_no_request_are_refused(stack: Stack) -> None:
    deep = b'{"model":"echo","messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
    tool = b'{"model":"echo","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f",'
    deep_schema = tool + b'"parameters":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}}]}"
    for body in (b"", b"null", b"[]", b"{", b"\xff\xfe", deep, deep_schema, b'"\\ud800"', b'{"model":1e999}'):
        for path in BODIES:
            headers = {"content-type": "application/json"}
            async with stack.http.post(f"{stack.url}{path}", data=body, headers=headers) as response:
                assert response.status == 400, (path, body[:50], await response.text())
                assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
async def test_what_the_document_describes_is_what_is_served(stack: Stack) -> None:
    async with stack.http.get(f"{stack.url}/openapi.json") as response:
        document = await response.json()
    document["paths"] = {path: item for path, item in document["paths"].items() if path.startswith(OWN)}
    assert len(document["paths"]) == 4
    schema = schemathesis.openapi.from_dict(document)
    failures: list[str] = []

    def checked(operation: Any) -> None:
        @settings(
            max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
        )
        @given(operation.as_strategy())
        def served(case: Any) -> None:
            answer = case.call(base_url=stack.url, timeout=10)
            case.validate_response(answer, checks=CHECKS)
            assert answer.status_code in {200, 400, 404, 405}, answer.text

        try:
            served()
        except (AssertionError, FailureGroup) as error:
            failures.append(f"{operation.label}: {error}")

    for found in schema.get_all_operations():
        await asyncio.to_thread(checked, found.ok())
    assert failures == []
