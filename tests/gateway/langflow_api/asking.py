"""Requests to the gateway's LangFlow API."""

import json
from typing import Any

import aiohttp

from tests.gateway.serving import Stack


async def post(stack: Stack, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """The status and the answer, read where it is JSON. A body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"content-type": "application/json"} if data else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with stack.http.post(f"{stack.url}{path}", data=data, headers=given | named) as response:
        return response.status, await _read(response)


async def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """The same of any method."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with stack.http.request(method, f"{stack.url}{path}", json=body, headers=named) as response:
        return response.status, await _read(response)


def said(answer: Any) -> str:
    """The text that clients read out of a run's answer; the same wherever they look."""
    (result,) = answer["outputs"][0]["outputs"]
    texts = {
        result["results"]["message"]["text"],
        result["results"]["message"]["data"]["text"],
        result["outputs"]["message"]["message"],
        result["artifacts"]["message"],
        result["messages"][0]["message"],
    }
    assert len(texts) == 1
    return texts.pop()


async def _read(response: aiohttp.ClientResponse) -> Any:
    is_json = response.headers.get("content-type") == "application/json"
    return json.loads(await response.read() or b"null") if is_json else await response.text()
