"""Flows as tools, called by mcp's own client over HTTP."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import pytest
from hypothesis import strategies as st
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from penstock.errors import Overloaded
from penstock.flow.v1 import flow_pb2
from tests.gateway.fakes import ECHO, RAG, document, node
from tests.gateway.keys import READING, WRITING, keys_file
from tests.gateway.serving import Stack, serving

TYPED = json.dumps(
    {
        **json.loads(
            document(
                node("n", "input", type="number"),
                node("extra", "input", type="json", required=False),
                node("first", "output"),
                node("second", "output"),
                edges=["n > first", "extra > second"],
            )
        ),
        "description": "Gives back what it takes.",
    }
)


@pytest.fixture
def settings() -> dict[str, Any]:
    """What a test sets of the gateway."""
    return {}


@pytest.fixture
async def stack(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Stack]:
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in {"rag": RAG, "echo": ECHO, "typed": TYPED}.items():
        (flows / f"{name}.json").write_text(text)
    async with serving(tmp_path, flows_dir=flows, **settings) as started:
        yield started


@pytest.fixture(params=["legacy", "auto"])
def client(stack: Stack, request: Any) -> Client:
    """To be entered by the test itself: a client belongs to the task that enters it."""
    return Client(f"{stack.url}/mcp", mode=request.param)


async def test_each_flow_is_a_tool_with_its_inputs(client: Client) -> None:
    async with client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == ["echo", "rag", "typed"]
        tool = listed.tools[2]
        assert tool.description == "Gives back what it takes."
        assert tool.input_schema == {
            "type": "object",
            "properties": {"n": {"type": "number"}, "extra": {}},
            "required": ["n"],
            "additionalProperties": False,
        }
        assert listed.next_cursor is None


async def test_a_call_runs_the_flow_and_tells_answer_and_sources(client: Client) -> None:
    async with client:
        answer = await client.call_tool("rag", {"question": "Where?"})
        assert not answer.is_error
        assert answer.content[0].text == "Denver"
        assert answer.structured_content["outputs"] == {"answer": "Denver"}
        (source,) = answer.structured_content["sources"]
        assert (source["document_id"], source["metadata"]["page"]) == ("d1", 7)
        assert len(answer.structured_content["trace_id"]) == 32


async def test_several_outputs_read_as_json(client: Client) -> None:
    async with client:
        answer = await client.call_tool("typed", {"n": 2.5, "extra": {"a": [None, True]}})
        assert json.loads(answer.content[0].text) == {"first": 2.5, "second": {"a": [None, True]}}


async def test_wrong_arguments_are_told_to_the_model(client: Client) -> None:
    async with client:
        answer = await client.call_tool("rag", {"query": "Where?"})
        assert answer.is_error
        assert "inputs: question (text)" in answer.content[0].text


async def test_what_a_backend_raises_is_told_to_the_model(client: Client, stack: Stack) -> None:
    async with client:
        stack.retrieval.error = Overloaded("full")
        answer = await client.call_tool("rag", {"question": "Where?"})
        assert (answer.is_error, "full" in answer.content[0].text) == (True, True)
        stack.retrieval.error = ZeroDivisionError("secret")
        answer = await client.call_tool("rag", {"question": "Where?"})
        assert (answer.is_error, "secret" in answer.content[0].text) == (True, False)


async def test_an_unknown_tool_is_an_error_of_the_protocol(client: Client) -> None:
    async with client:
        with pytest.raises(MCPError, match="no flow 'none'"):
            await client.call_tool("none", {})


async def test_a_listing_has_pages(stack: Stack) -> None:
    for number in range(101):
        await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id=f"more-{number:03}", document=ECHO))
    async with Client(f"{stack.url}/mcp") as client:
        first = await client.list_tools()
        second = await client.list_tools(cursor=first.next_cursor)
        with pytest.raises(MCPError, match="page_token"):
            await client.list_tools(cursor="made up")
    names = [tool.name for page in (first, second) for tool in page.tools]
    assert len(first.tools) == 100
    assert names == sorted({*names, "rag", "echo", "typed"})


async def begun_call(client: Client, stack: Stack) -> "asyncio.Task[Any]":
    begun = asyncio.Event()

    async def stall(_: int) -> None:
        begun.set()
        await asyncio.sleep(30)

    stack.generation.before = stall
    call = asyncio.create_task(client.call_tool("rag", {"question": "Where?"}))
    await asyncio.wait_for(begun.wait(), 5)
    return call


async def test_a_call_that_is_cancelled_stops_the_models_work(stack: Stack) -> None:
    async with Client(f"{stack.url}/mcp") as client:
        (call := await begun_call(client, stack)).cancel()
        await asyncio.wait_for(stack.generation.closed.wait(), 5)
        await asyncio.gather(call, return_exceptions=True)
        assert (await client.call_tool("echo", {"text": "a"})).content[0].text == "A"


async def test_a_client_that_leaves_stops_the_models_work(client: Client, stack: Stack) -> None:
    # By the older protocol a cancelled call is told by another request, which a server without sessions cannot connect with it.
    async with client:
        call = await begun_call(client, stack)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await asyncio.wait_for(stack.generation.closed.wait(), 5)


async def test_calls_at_the_same_time_are_kept_apart(client: Client) -> None:
    async with client:
        answers = await asyncio.gather(*(client.call_tool("echo", {"text": f"a{n}"}) for n in range(20)))
        assert [answer.content[0].text for answer in answers] == [f"A{n}" for n in range(20)]


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPTS = {"accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("settings", [{"mcp_origins": "https://chat.example.com,http://localhost:6274"}])
async def test_only_pages_of_the_origins_that_are_named_may_call(stack: Stack) -> None:
    for origin, status in [("https://evil.example", 403), ("null", 403), ("http://localhost:6274", 200)]:
        async with stack.http.post(f"{stack.url}/mcp", json=PING, headers={**ACCEPTS, "origin": origin}) as response:
            assert response.status == status, await response.text()


async def test_other_verbs_and_bodies_that_are_none_are_refused(stack: Stack) -> None:
    async with stack.http.get(f"{stack.url}/mcp", headers=ACCEPTS) as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
    for body in (b"", b"{", b"[]", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":7}'):
        headers = {**ACCEPTS, "content-type": "application/json"}
        async with stack.http.post(f"{stack.url}/mcp", data=body, headers=headers) as response:
            text = await response.text()
            assert response.status in {200, 400}, text
            assert "error" in text


async def test_deep_and_endless_arguments_are_no_failure_of_ours(stack: Stack) -> None:
    deep = json.loads("[" * 60 + "]" * 60)
    async with Client(f"{stack.url}/mcp") as client:
        for extra in (deep, "x" * 100_000):
            answer = await client.call_tool("typed", {"n": 1, "extra": extra})
            assert answer.is_error is (extra is deep)


async def test_keys_hold_for_tools(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "echo.json").write_text(ECHO)
    async with serving(tmp_path, flows_dir=flows, api_keys_file=keys_file(tmp_path)) as stack:
        for key, status in ((None, 401), ("psk_unknown", 401), (WRITING, 403), (READING, 200)):
            headers = {**ACCEPTS, **({"authorization": f"Bearer {key}"} if key else {})}
            async with stack.http.post(f"{stack.url}/mcp", json=PING, headers=headers) as response:
                assert response.status == status
                assert (response.headers.get("www-authenticate") == "Bearer") is (status == 401)
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {READING}"}) as http:
            async with Client(streamable_http_client(f"{stack.url}/mcp", http_client=http)) as client:
                answer = await client.call_tool("echo", {"text": "a"})
                assert answer.content[0].text == "A"


def test_a_gateway_that_nobody_asks_for_tools_imports_no_mcp() -> None:
    code = "import sys, gateway.__main__; sys.exit(any(name.split('.')[0] in {'mcp', 'starlette'} for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
METHODS = (
    "tools/call",
    "tools/list",
    "initialize",
    "ping",
    "server/discover",
    "resources/list",
    "notifications/cancelled",
    "x",
)


@pytest.mark.slow
async def test_requests_that_nobody_would_write_are_answered_or_refused(stack: Stack) -> None:
    loop = asyncio.get_running_loop()

    async def post(body: Any, version: str | None) -> tuple[int, str]:
        headers = {**ACCEPTS, "content-type": "application/json", **({"mcp-protocol-version": version} if version else {})}
        async with asyncio.timeout(10):
            async with stack.http.post(f"{stack.url}/mcp", data=json.dumps(body).encode(), headers=headers) as response:
                return response.status, await response.text()

    @hypothesis.settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(
        st.fixed_dictionaries(
            {"jsonrpc": st.just("2.0"), "method": st.sampled_from(METHODS)},
            optional={
                "id": st.integers() | st.text(max_size=5) | ANYTHING,
                "params": st.fixed_dictionaries({"name": st.sampled_from(["rag", "echo", "none"]), "arguments": ANYTHING})
                | ANYTHING,
            },
        )
        | ANYTHING,
        st.sampled_from([None, "2025-06-18", "2026-07-28", "yesterday"]),
    )
    def posted(body: Any, version: str | None) -> None:
        status, text = asyncio.run_coroutine_threadsafe(post(body, version), loop).result(20)
        assert status < 500, (status, text)

    await asyncio.to_thread(posted)
