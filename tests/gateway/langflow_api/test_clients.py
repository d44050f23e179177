"""Programs that were written for LangFlow, against the gateway's own process: its JavaScript client, and its snippets."""

import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

from penstock.telemetry import Telemetry
from tests.gateway.langflow_api.flows import ANSWER, MODEL_ID, with_model
from tests.gateway.serving import Generation, Retrieval, backends

CLIENT = "@datastax/langflow-client@0.4.1"
KEY = "sk-of-the-test"
pytestmark = pytest.mark.e2e


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a gateway process with a key and the flow of the captured answers."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "chat.json").write_text(json.dumps(with_model()))
    key = {"name": "test", "key_sha256": hashlib.sha256(KEY.encode()).hexdigest(), "scopes": ["read"]}
    (tmp_path / "keys.json").write_text(json.dumps([key]))
    generation = Generation()
    generation.words = ANSWER
    async with backends(Retrieval(), generation, Telemetry(tracer_provider=TracerProvider())) as target:
        settings = {
            "GENERATION_TARGET": target,
            "RETRIEVAL_TARGET": target,
            "DATA_DIR": tmp_path / "data",
            "FLOWS_DIR": tmp_path / "flows",
            "API_KEYS_FILE": tmp_path / "keys.json",
            "ADDRESS_FILE": tmp_path / "address.json",
            "PARENT_PID": os.getpid(),
        }
        environment = os.environ | {f"PENSTOCK_GATEWAY_{name}": str(value) for name, value in settings.items()}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", env=environment)
        try:
            while not (tmp_path / "address.json").exists():
                assert process.returncode is None
                await asyncio.sleep(0.05)
            yield f"http://{json.loads((tmp_path / 'address.json').read_text())['http']}"
        finally:
            process.terminate()
            assert await process.wait() == 0


@pytest.fixture
async def javascript(tmp_path: Path) -> Path:
    """A folder with LangFlow's JavaScript client. Skips where there is no npm, or none to install from, unless CI is set."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm and node are not here")
    folder = tmp_path / "javascript"
    folder.mkdir()
    command = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", CLIENT)
    npm = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await npm.communicate()
    if npm.returncode != 0:
        message = f"{CLIENT} could not be installed: {printed.decode()[-500:]}"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    shutil.copy(Path(__file__).parent / "client.mjs", folder)
    return folder


async def test_the_javascript_client_runs_and_streams_a_flow(gateway: str, javascript: Path) -> None:
    node = await asyncio.create_subprocess_exec(
        "node", "client.mjs", gateway, KEY, MODEL_ID, cwd=javascript, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(node.communicate(), 60)
    assert node.returncode == 0
    found, answer = json.loads(printed), "".join(ANSWER)
    assert found == {
        "text": answer,
        "session": "js",
        "tweaked": answer,
        "kinds": ["add_message", "add_message", *["token"] * len(ANSWER), "add_message", "add_message", "end"],
        "tokens": answer,
        "end": answer,
        "failure": "403 - Forbidden",
    }


async def test_the_snippet_of_langflows_api_pane(gateway: str) -> None:
    """As it shows one for Python, with httpx in the place of requests."""
    url = f"{gateway}/api/v1/run/{MODEL_ID}"
    payload = {"output_type": "chat", "input_type": "chat", "input_value": "hello world!", "session_id": "py"}
    headers = {"Content-Type": "application/json", "x-api-key": KEY}
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.request("POST", url, json=payload, headers=headers)
        response.raise_for_status()
        assert response.json()["outputs"][0]["outputs"][0]["results"]["message"]["text"] == "".join(ANSWER)
        async with client.stream("POST", url, params={"stream": "true"}, json=payload, headers=headers) as stream:
            events = [json.loads(line) async for line in stream.aiter_lines() if line]
        assert [event["event"] for event in events][-1] == "end"
        uploaded = await client.post(url, data={"input_value": "hi"}, files={"file": b"x"}, headers={"x-api-key": KEY})
        assert uploaded.json()["outputs"][0]["inputs"] == {"input_value": "hi"}
