"""LangFlow's API under input that nobody thought of: no 500 but a component's own, no hang, the gateway as sound as before."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.flow_model import Flow
from gateway.langflow_api.face import Face
from gateway.langflow_api.multipart import fields
from gateway.langflow_api.tweaks import settings as tweaked
from gateway.langflow_api.wording import Refused
from gateway.overriding import overridden
from gateway.structs import to_struct
from gateway.validation import validate
from penstock.errors import InvalidArgument, MalformedRequest, PermissionDenied
from tests.gateway.langflow_api.asking import post, said
from tests.gateway.langflow_api.flows import TRIVIAL_ID, keep, with_model
from tests.gateway.serving import Stack, serving

RUN = f"/api/v1/run/{TRIVIAL_ID}"
NAMES = st.sampled_from([
    "ChatInput-aaaaa", "Chat Input", "Prompt Template", "Prompt Template-bbbbb", "OpenAI", "OpenAIModel-ddddd", "input_value",
    "template", "temperature", "max_tokens", "system_message", "code", "value", "load_from_db", "stream", "proxy", "",
])  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ["{question}", "{x.y}", "{0}", "{{", "{"]
)
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3), max_leaves=8
)
TWEAKS = st.dictionaries(NAMES | TEXTS, VALUES | st.dictionaries(NAMES | TEXTS, VALUES, max_size=4), max_size=5)

PIECES = st.sampled_from([b"--x", b"\r\n", b"--", b'; name="a"', b"Content-Disposition: form-data"])

SCHEMATHESIS = (
    "--include-path-regex", "^/(api|health)", "--phases", "coverage,fuzzing", "--max-examples", "6", "--workers", "1",
    "--checks", "not_a_server_error,status_code_conformance,content_type_conformance", "--generation-deterministic",
    "--request-timeout", "20", "--no-color", "--exclude-name", "DELETE /api/v1/flows/{flow}",
)  # fmt: skip
CONFIGURATION = """
[parameters]
"path.flow" = ["chat", "bench-llm200", "nobody"]
"""


@pytest.fixture(scope="module")
def flow() -> Flow:
    return validate(json.dumps(with_model()))


@given(tweaks=TWEAKS, variables=st.dictionaries(st.just("PERSONA") | TEXTS.map(str.upper), TEXTS, max_size=3))
@settings(max_examples=300, deadline=None)
def test_tweaks_are_taken_passed_over_or_refused(flow: Flow, tweaks: dict[str, Any], variables: dict[str, str]) -> None:
    face = Face("chat", flow)
    try:
        made = tweaked(face, tweaks, variables)
    except Refused:
        return
    to_struct(made.inputs)
    to_struct(made.overrides)
    assert set(made.inputs) <= set(face.inputs)
    assert all("code" not in values for values in made.overrides.values())
    if made.overrides:
        try:
            changed = overridden(flow, made.overrides)
        except (InvalidArgument, PermissionDenied):
            return
        assert [node.id for node in changed.nodes] == [node.id for node in flow.nodes]


@given(body=st.binary(max_size=300) | st.lists(PIECES, max_size=12).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_a_form_is_read_or_refused(body: bytes) -> None:
    try:
        found = fields(body, "multipart/form-data; boundary=x")
    except MalformedRequest:
        return
    assert all(len(part.data) <= len(body) and isinstance(part.text, str) for part in found.values())


BODIES = (
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["input_value", "input_type", "output_type", "output_component", "tweaks", "session_id"]) | TEXTS,
        VALUES | TWEAKS | st.sampled_from(["chat", "text", "any", "debug"]),
        max_size=6,
    ).map(lambda body: json.dumps(body).encode())
)  # fmt: skip


async def test_any_body_is_answered_and_none_is_a_failure_of_ours(stack: Stack) -> None:
    seen: set[int] = set()
    paths = [RUN, f"{RUN}?stream=true", "/api/v1/run/advanced/chat", "/api/v2/workflows", "/api/v1/responses"]

    async def send(path: str, body: bytes) -> None:
        status, answer = await asyncio.wait_for(post(stack, path, body), 20)
        seen.add(status)
        assert status in (200, 400, 422, 404), (path, body, answer)

    loop = asyncio.get_running_loop()

    def explore() -> None:
        @given(path=st.sampled_from(paths), body=BODIES)
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def each(path: str, body: bytes) -> None:
            asyncio.run_coroutine_threadsafe(send(path, body), loop).result(30)

        each()

    await asyncio.to_thread(explore)
    assert {200, 422} <= seen
    assert said((await post(stack, RUN, {"input_value": "sound"}))[1]) == "Echo: sound"


@pytest.mark.slow
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Against the paths that the OpenAPI document describes, by their own schemas."""
    async with serving(tmp_path, background_queue_max=100_000) as stack:
        await keep(stack, "chat", with_model())
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{stack.url}/openapi.json", *SCHEMATHESIS]
        run = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
        )
        printed, _ = await asyncio.wait_for(run.communicate(), 280)
        assert run.returncode == 0, printed.decode()[-6000:]
        assert said((await post(stack, "/api/v1/run/chat", {"input_value": "x"}))[1]) == "Denver"
