"""LangFlow's flow in Penstock, and the three dialects in which its gateway is asked over HTTP. Like LangFlow it wants a key."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.fake_openai import MODEL
from bench.langflow_peer.servers import export
from penstock.cli.local import LocalStack
from penstock.clients import Penstock
from penstock.keys import KeyEntry, sha256_of

FLOW: Final = "bench-chat"
QUESTION: Final = "How many tackles did Luke Kuechly register?"
ANSWER: Final = "At once."
"""What stands in every good answer, and what in every stream."""
WORD: Final = " word"
FEW, MANY = 20, 400
"""Tokens of a short and of a long stream."""
RUN, LANGFLOW_RUN, CHAT = f"/v1/flows/{FLOW}:run", f"/api/v1/run/{FLOW}", "/v1/chat/completions"
SESSIONS: Final = 32
"""Conversations to which the runs through LangFlow's API belong; what is kept of each has its bound."""
# The default bounds would refuse 128 in flight, as they should; here nothing may be refused.
_ROOM: Final = {"PENSTOCK_GENERATION_RUNNING_MAX": "256", "PENSTOCK_GENERATION_WAITING_MAX": "256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One dialect: how a whole answer is asked for, and a stream of FEW or MANY tokens."""

    dialect: str
    path: str
    payloads: Sequence[bytes]
    stream_path: str
    stream: Mapping[int, bytes]

    def options(self, target: str, key: str, *, tokens: int = 0) -> dict[str, Any]:
        """An HttpCaller's, for a whole answer or for a stream of so many tokens."""
        path = self.stream_path.format(flow=named(tokens)) if tokens else self.path
        expected, headers = WORD if tokens else ANSWER, {"x-api-key": key}
        return {"target": target, "path": path, "dialect": self.dialect, "headers": headers, "expected": expected}


def named(tokens: int) -> str:
    """The flow whose model gives at most so many tokens."""
    return f"{FLOW}-{tokens}"


def langflow_payloads(sessions: int) -> tuple[bytes, ...]:
    """Requests as LangFlow takes them, a conversation each."""
    asked = {"input_value": QUESTION, "input_type": "chat", "output_type": "chat"}
    return tuple(orjson.dumps({**asked, "session_id": f"s{number}"}) for number in range(sessions))


_OWN: Final = orjson.dumps({"inputs": {"input_value": QUESTION}})


def _chat(flow: str, **more: Any) -> bytes:
    return orjson.dumps({"model": flow, "messages": [{"role": "user", "content": QUESTION}], **more})


WAYS: Final[Mapping[str, Way]] = {
    RUN: Way(
        dialect="penstock",
        path=RUN,
        payloads=(_OWN,),
        stream_path="/v1/flows/{flow}:stream",
        stream=dict.fromkeys((FEW, MANY), _OWN),
    ),
    LANGFLOW_RUN: Way(
        dialect="langflow",
        path=f"{LANGFLOW_RUN}?stream=false",
        payloads=langflow_payloads(SESSIONS),
        stream_path="/api/v1/run/{flow}?stream=true",
        stream={tokens: langflow_payloads(1)[0] for tokens in (FEW, MANY)},
    ),
    CHAT: Way(
        dialect="openai",
        path=CHAT,
        payloads=(_chat(FLOW),),
        stream_path=CHAT,
        stream={tokens: _chat(named(tokens), stream=True) for tokens in (FEW, MANY)},
    ),
}


@asynccontextmanager
async def penstock(folder: Path, fake: str, key: str, more: Mapping[str, str] | None = None) -> AsyncIterator[LocalStack]:
    """Gateway and generation service in front of the fake endpoint; they let in whoever shows the key."""
    settings = {
        "PENSTOCK_GENERATION_ENGINE": "openai",
        "PENSTOCK_GENERATION_OPENAI_BASE_URL": f"http://{fake}/v1",
        "PENSTOCK_GENERATION_MODEL": MODEL,
        "PENSTOCK_GATEWAY_API_KEYS_FILE": str(_keys_file(folder, key)),
        **_ROOM,
        **(more or {}),
    }
    async with processes.services(folder, ("generation", "gateway"), settings) as stack:
        yield stack


async def keep_flows(stack: LocalStack, key: str, fake: str) -> None:
    """Has the gateway keep LangFlow's export, and those of it whose answers are short and long."""
    async with Penstock(stack.services["gateway"].grpc, api_key=key) as gateway:
        for name, tokens in {FLOW: 0, named(FEW): FEW, named(MANY): MANY}.items():
            await gateway.create_flow(name, json.dumps(export_of(fake, name, tokens)), replace=True)


def export_of(fake: str, name: str, tokens: int) -> dict[str, Any]:
    """LangFlow's export under another name, with another bound of its model's answer; 0: none."""
    flow = export(fake)
    flow |= {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "name": name, "endpoint_name": name}
    for node in flow["data"]["nodes"]:
        template = node["data"]["node"]["template"]
        if "max_tokens" in template:
            template["max_tokens"]["value"] = tokens
    return flow


def _keys_file(folder: Path, key: str) -> Path:
    entry = KeyEntry(name="bench", key_sha256=sha256_of(key), scopes=["admin"], principals="all")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "keys.json"
    path.write_text(json.dumps([entry.model_dump()]))
    return path
