"""Both servers, ready and with the flow in them."""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from bench import processes
from bench.peers.processes import free_port
from bench.processes import WorkerFailed

EXPORT: Final = Path(__file__).parent / "chat_model.json"
_MODEL_URL: Final = "http://model.invalid/v1"
_ANSWER_S: Final = 120.0
_KEPT: Final = ("name", "description", "data", "endpoint_name")
_LFX_KEY: Final = "bench"
_USER: Final = {"username": "bench", "password": "A-pass-word-0f-the-bench!"}
_QUIET: Final = {"DO_NOT_TRACK": "true", "LANGFLOW_DO_NOT_TRACK": "true", "NO_PROXY": "127.0.0.1,localhost"}
# The model is on this machine, which LangFlow forbids by default. At log level "error" it falls over with 128 in flight.
_SETTINGS: Final = {
    **_QUIET,
    "LANGFLOW_SAVE_DB_IN_CONFIG_DIR": "true",
    "LANGFLOW_SUPERUSER": _USER["username"],
    "LANGFLOW_SUPERUSER_PASSWORD": _USER["password"],
    "LANGFLOW_AUTO_LOGIN": "false",
    "LANGFLOW_OPEN_BROWSER": "false",
    "LANGFLOW_STORE": "false",
    "LANGFLOW_LOG_LEVEL": "critical",
    "LANGFLOW_SSRF_ALLOWED_HOSTS": "127.0.0.1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server that has answered: its process, where a run is posted, with which headers, and how long it took to begin.

    `ready_s` is from its start until it called itself healthy, `first_s` its first answer.
    """

    pid: int
    address: str
    path: str
    headers: Mapping[str, str]
    ready_s: float
    first_s: float


def export(model: str) -> dict[str, Any]:
    """The flow, its model at "host:port"."""
    flow: dict[str, Any] = json.loads(EXPORT.read_text().replace(_MODEL_URL, f"http://{model}/v1"))
    return flow


@asynccontextmanager
async def langflow(programs: Path, folder: Path, model: str) -> AsyncIterator[Peer]:
    """LangFlow's server, one worker, SQLite. Raises WorkerFailed."""
    port, began = free_port(), time.monotonic()
    command = [
        str(programs / "langflow"),
        "run",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-only",
    ]
    settings = {**_SETTINGS, "LANGFLOW_CONFIG_DIR": str(folder / "langflow-config")}
    async with processes.started(command, folder / "langflow.log", settings, _healthy(port)) as running:
        ready_s = time.monotonic() - began
        login = await _ask(
            port, "POST", "/api/v1/login", urlencode(_USER), {"content-type": "application/x-www-form-urlencoded"}
        )
        admin = {"authorization": f"Bearer {login['access_token']}"}
        key = await _ask(port, "POST", "/api/v1/api_key/", {"name": "bench"}, admin)
        headers = {"x-api-key": key["api_key"]}
        flow = {
            name: value for name, value in export(model).items() if name in {"name", "description", "data", "endpoint_name"}
        }
        for kept in await _ask(port, "GET", "/api/v1/flows/?get_all=true&header_flows=true", None, headers):
            if kept["name"].startswith(flow["name"]):
                await _ask(port, "DELETE", f"/api/v1/flows/{kept['id']}", None, headers)
        made = await _ask(port, "POST", "/api/v1/flows/", flow, headers)
        path = f"/api/v1/run/{made['id']}?stream=false"
        yield await _first(port, path, headers, running.pid, ready_s)


@asynccontextmanager
async def lfx(programs: Path, folder: Path, model: str) -> AsyncIterator[Peer]:
    """`lfx serve`, one worker. Raises WorkerFailed."""
    flows = folder / "lfx-flows"
    flows.mkdir(parents=True, exist_ok=True)
    (flows / "chat_model.json").write_text(json.dumps(export(model)))
    port, began = free_port(), time.monotonic()
    command = [str(programs / "lfx"), "serve", str(flows), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options = ["--log-level", "error", "--identity-mode", "header", "--identity-header", "x-user-id"]
    settings = {**_QUIET, "LANGFLOW_API_KEY": _LFX_KEY, "LANGFLOW_SSRF_ALLOWED_HOSTS": "127.0.0.1"}
    settings["LANGFLOW_CONFIG_DIR"] = str(folder / "lfx-config")
    async with processes.started([*command, *options], folder / "lfx.log", settings, _healthy(port)) as running:
        ready_s = time.monotonic() - began
        headers = {"x-api-key": _LFX_KEY, "x-user-id": "bench"}
        listed = await _ask(port, "GET", "/flows", None, headers)
        yield await _first(port, f"/flows/{listed[0]['id']}/run", headers, running.pid, ready_s)


async def _first(port: int, path: str, headers: Mapping[str, str], pid: int, ready_s: float) -> Peer:
    began = time.monotonic()
    await _ask(port, "POST", path, {"input_value": "hi", "session_id": "first"}, headers)
    return Peer(
        pid=pid, address=f"127.0.0.1:{port}", path=path, headers=headers, ready_s=ready_s, first_s=time.monotonic() - began
    )


def _healthy(port: int) -> Any:
    def address() -> str:
        try:
            status, _ = _exchange(port, "GET", "/health", None, {}, timeout_s=1.0)
        except OSError:
            return ""
        return f"127.0.0.1:{port}" if status == 200 else ""

    return address


async def _ask(port: int, verb: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
    """An answer's JSON. Raises WorkerFailed."""
    try:
        status, answer = await asyncio.to_thread(_exchange, port, verb, path, body, headers)
    except OSError as error:
        raise WorkerFailed(f"{verb} {path}: {error}") from error
    if status >= 300:
        raise WorkerFailed(f"{verb} {path} answered {status}: {answer[:300].decode(errors='replace')}")
    return json.loads(answer) if answer else None


def _exchange(
    port: int, verb: str, path: str, body: Any, headers: Mapping[str, str], *, timeout_s: float = _ANSWER_S
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        sent = body if isinstance(body, str | None) else json.dumps(body)
        connection.request(verb, path, sent, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
