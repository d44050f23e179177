"""Runs by LangFlow's API: how inputs, tweaks, variables, sessions and forms become a run of ours."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.flow.v1 import flow_pb2
from tests.gateway.fakes import CHAT, ECHO, document, node
from tests.gateway.langflow_api.asking import ask, post, said
from tests.gateway.langflow_api.flows import (
    MODEL_ID,
    TRIVIAL_ID,
    component,
    json_events,
    keep,
    origin,
    sse_events,
    trivial,
    with_model,
)
from tests.gateway.serving import Stack, serving

RUN = f"/api/v1/run/{TRIVIAL_ID}"
CHAT_RUN = f"/api/v1/run/{MODEL_ID}"


@pytest.mark.parametrize("name", [TRIVIAL_ID, TRIVIAL_ID.upper(), TRIVIAL_ID.replace("-", ""), "bench-trivial", "trivial"])
async def test_a_flow_is_found_by_its_id_here_and_by_the_names_that_it_had(stack: Stack, name: str) -> None:
    status, answer = await post(stack, f"/api/v1/run/{name}", {"input_value": "x"})
    assert (status, said(answer), answer["session_id"]) == (200, "Echo: x", TRIVIAL_ID)
    response = await stack.runs.RunFlow(flow_pb2.RunFlowRequest(name=f"flows/{name}"))
    assert response.outputs["ChatOutput-ccccc"] == "Echo: "
    assert (await post(stack, "/api/v1/run/Bench-Trivial", {}))[0] == 404


async def test_a_flow_that_is_replaced_answers_anew_at_once(stack: Stack) -> None:
    assert said((await post(stack, RUN, {"input_value": "x"}))[1]) == "Echo: x"
    changed = json.dumps(trivial()).replace("Echo: ", "Again: ")
    await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id="trivial", document=changed, replace=True))
    assert said((await post(stack, RUN, {"input_value": "x"}))[1]) == "Again: x"
    await ask(stack, "DELETE", f"/api/v1/flows/{TRIVIAL_ID}")
    assert (await post(stack, RUN, {"input_value": "x"}))[0] == 404


@pytest.mark.parametrize(
    ("tweaks", "text"),
    [
        ({"Prompt Template": {"template": "T: {question}"}}, "T: hi"),
        ({"Prompt Template-bbbbb": {"template": {"value": "V: {question}", "load_from_db": False}}}, "V: hi"),
        ({"template": "All: {question}"}, "All: hi"),
        ({"nobody": {"template": "x"}, "Prompt Template": {"nothing": 1}, "stream": True, "a": {"b": 1}}, "Echo: hi"),
        ({"Prompt Template": {"template": {"load_from_db": True}}}, "Echo: hi"),
        ({}, "Echo: hi"),
        (None, "Echo: hi"),
    ],
)
async def test_tweaks(stack: Stack, tweaks: Any, text: str) -> None:
    status, answer = await post(stack, RUN, {"input_value": "hi", "tweaks": tweaks})
    assert (status, said(answer)) == (200, text)
    assert said((await post(stack, RUN, {"input_value": "hi"}))[1]) == "Echo: hi", "a tweak is for one run"


async def test_tweaks_of_a_model_reach_it_and_texts_stand_for_numbers(stack: Stack) -> None:
    tweaks = {"OpenAI": {"temperature": "0.5", "max_tokens": 7}}
    assert (await post(stack, CHAT_RUN, {"input_value": "hi", "tweaks": tweaks}))[0] == 200
    asked = stack.generation.requests[-1].sampling
    assert (asked.temperature, asked.max_tokens) == (0.5, 7)


async def test_global_variables_of_a_request(stack: Stack) -> None:
    headers = {"X_LANGFLOW_GLOBAL_VAR_PERSONA": "Be brief."}
    assert (await post(stack, CHAT_RUN, {"input_value": "hi"}, **headers))[0] == 200
    assert stack.generation.requests[-1].messages[0].content == "Be brief."
    tweak = {"Prompt Template": {"template": {"value": "greeting", "load_from_db": True}}}
    status, answer = await post(
        stack, RUN, {"input_value": "hi", "tweaks": tweak}, X_LANGFLOW_GLOBAL_VAR_GREETING="Dear {question}"
    )
    assert (status, said(answer)) == (200, "Dear hi")
    assert await post(stack, RUN, {"tweaks": tweak}) == (400, {"detail": "greeting variable not found."})
    body = {"flow_id": MODEL_ID, "input_value": "hi", "globals": {"PERSONA": "Be kind."}}
    status, answer = await post(stack, "/api/v2/workflows", body, **headers)
    assert (status, answer["globals"]) == (200, {"PERSONA": "Be kind."})
    assert stack.generation.requests[-1].messages[0].content == "Be kind."


async def test_a_form(stack: Stack) -> None:
    lines = []
    fields = {"input_value": "ü\r\n", "session_id": "s", "tweaks": '{"Prompt Template": {"template": "F: {question}"}}'}
    for name, value in fields.items():
        lines += ["--xyz", f'Content-Disposition: form-data; name="{name}"', "", value]
    lines += ["--xyz", 'Content-Disposition: form-data; name="file"; filename="a.txt"', "", "--not the end", "--xyz--", ""]
    kind = {"content_type": 'multipart/form-data; boundary="xyz"'}
    body = "\r\n".join(lines).encode()
    async with stack.http.post(f"{stack.url}{RUN}", data=body, headers={"content-type": kind["content_type"]}) as response:
        answer = await response.json()
    assert (response.status, said(answer), answer["session_id"]) == (200, "F: ü\r\n", "s")
    for broken in (b"", b"--xyz", body[:-20], body.replace(b"name=", b"nome="), b"--xyz\r\n" * 200 + b"--xyz--"):
        async with stack.http.post(
            f"{stack.url}{RUN}", data=broken, headers={"content-type": kind["content_type"]}
        ) as response:
            assert response.status == 422, broken


async def test_outputs_are_chosen_by_type_and_by_component(stack: Stack) -> None:
    flow = trivial()
    text = component(
        "TextOutput-eeeee", "TextOutput", "Text Output", "text_output", output="TextOutput-eeeee", nodes=["TextOutput-eeeee"]
    )
    flow["origin"]["components"].append(text)
    flow["nodes"].append({"id": "TextOutput-eeeee", "type": "output"})
    flow["edges"].append({"source": "ChatInput-aaaaa", "target": "TextOutput-eeeee"})
    flow["origin"]["id"], flow["origin"]["endpoint_name"] = None, None
    await keep(stack, "two", flow)

    async def components(**body: Any) -> list[str]:
        status, answer = await post(stack, "/api/v1/run/two", {"input_value": "x"} | body)
        assert (status, answer["session_id"]) == (200, "two")
        return [each["component_id"] for each in answer["outputs"][0]["outputs"]]

    assert await components() == ["ChatOutput-ccccc"]
    assert await components(output_type="text") == ["TextOutput-eeeee"]
    assert await components(output_type="any") == ["ChatOutput-ccccc", "TextOutput-eeeee"]
    assert await components(output_component="Text Output") == ["TextOutput-eeeee"]
    assert await components(output_component="Prompt Template-bbbbb") == ["Prompt Template-bbbbb"]
    assert await components(output_component="nobody") == []
    _, answer = await post(stack, "/api/v1/run/two", {"input_value": "x", "output_type": "text"})
    (result,) = answer["outputs"][0]["outputs"]
    unsaid = result["results"]["text"]
    assert (unsaid["text"], unsaid["sender"], unsaid["session_id"], "id" in unsaid["data"]) == ("x", None, "", False)
    assert (result["messages"][0]["message"], result["artifacts"]["text"]["raw"]) == ("x", "x")
    assert len(await components(output_type="debug")) == 4
    _, whole = await post(stack, "/api/v2/workflows", {"flow_id": "two", "input_value": "x"})
    assert whole["output"] == {"reason": "multiple", "text": None, "source": None}
    chosen = {"flow_id": "two", "input_value": "x", "output_ids": ["TextOutput-eeeee"]}
    _, whole = await post(stack, "/api/v2/workflows", chosen)
    assert whole["output"] == {"reason": "single", "text": "x", "source": "TextOutput-eeeee"}
    status, answer = await post(stack, "/api/v2/workflows", chosen | {"output_ids": ["nobody"]})
    assert (status, answer["detail"]["code"]) == (422, "UNKNOWN_OUTPUT_IDS")


async def test_inputs_take_the_value_by_their_type(stack: Stack) -> None:
    flow = trivial()
    text = component(
        "TextInput-fffff", "TextInput", "Text Input", "text_input", input="TextInput-fffff", nodes=["TextInput-fffff"],
        fields={"input_value": "input:TextInput-fffff"},
    )  # fmt: skip
    flow["origin"]["components"].append(text)
    flow["nodes"][1]["params"]["template"] = "{question}|{text}"
    flow["nodes"].append({"id": "TextInput-fffff", "type": "input", "params": {"required": False, "default": "d"}})
    flow["edges"].append({"source": "TextInput-fffff", "target": "Prompt-bbbbb.text"})
    flow["origin"]["endpoint_name"] = "inputs"
    await keep(stack, "inputs", flow)
    for kind, expected in (("chat", "x|d"), ("text", "|x"), ("any", "x|x")):
        status, answer = await post(stack, "/api/v1/run/inputs", {"input_value": "x", "input_type": kind})
        assert (status, said(answer)) == (200, expected)
    tweak = {"Text Input": {"input_value": 7}}
    assert said((await post(stack, "/api/v1/run/inputs", {"input_value": "x", "tweaks": tweak}))[1]) == "x|7"
    inputs = [{"components": ["Text Input"], "input_value": "t"}, {"components": ["ChatInput-aaaaa"], "input_value": "c"}]
    _, answer = await post(stack, "/api/v1/run/advanced/inputs", {"inputs": inputs})
    assert [each["outputs"][0]["artifacts"]["message"] for each in answer["outputs"]] == ["|t", "c|d"]


async def test_a_flow_that_was_written_here_is_run_as_well(stack: Stack) -> None:
    await keep(stack, "echo", json.loads(ECHO))
    status, answer = await post(stack, "/api/v1/run/echo", {"input_value": "ab"})
    assert (status, said(answer), answer["session_id"]) == (200, "AB", "echo")
    assert answer["outputs"][0]["outputs"][0]["component_id"] == "answer"
    assert (await post(stack, "/api/v1/run/echo", {}))[0] == 400, "its input is required"
    open_chat = json.loads(CHAT) | {"overrides": "all"}
    await keep(stack, "own", open_chat)
    tweaks = {"model": {"max_tokens": 3}, "prompt": {"template": "P {question}"}}
    status, answer = await post(stack, "/api/v1/run/own?stream=true", {"input_value": "ab", "tweaks": tweaks})
    kinds = [event["event"] for event in json_events(answer)]
    assert (status, kinds[:3], kinds[-1]) == (200, ["add_message", "add_message", "token"], "end")
    assert stack.generation.requests[-1].sampling.max_tokens == 3
    _, workflow = await post(stack, "/api/v2/workflows", {"flow_id": "own", "input_value": "ab"})
    assert workflow["output"]["source"] == "answer"


async def test_an_output_that_is_no_text_is_a_block_of_json(stack: Stack) -> None:
    flow = document(
        node("q", "input"), node("p", "transform", operation="parse_json"), node("a", "output"), edges=["q > p", "p > a"]
    )
    await keep(stack, "data", json.loads(flow))
    _, answer = await post(stack, "/api/v1/run/data", {"input_value": '{"a": [1, 2.5]}'})
    assert said(answer) == '```json\n{\n  "a": [\n    1,\n    2.5\n  ]\n}\n```'


async def test_what_a_branch_that_was_not_taken_would_have_fed_is_left_out(stack: Stack) -> None:
    cases = [{"name": "yes", "when": 'value == "yes"'}]
    flow = document(
        node("q", "input"),
        node("s", "switch", type="text", cases=cases, otherwise="no"),
        node("a", "output"),
        node("b", "output"),
        edges=["q > s.value", "s.yes > a", "s.no > b"],
    )
    await keep(stack, "branch", json.loads(flow))
    _, answer = await post(stack, "/api/v1/run/branch", {"input_value": "yes"})
    assert [each["component_id"] for each in answer["outputs"][0]["outputs"]] == ["a"]
    _, workflow = await post(stack, "/api/v2/workflows", {"flow_id": "branch", "input_value": "nope"})
    assert workflow["output"] == {"reason": "single", "text": "nope", "source": "b"}


async def test_a_session_is_one_flows_and_defaults_to_its_id(stack: Stack) -> None:
    history = {"id": "h", "type": "history", "params": {"operation": "read"}}
    for name in ("one", "two"):
        flow = trivial()
        flow["origin"] = origin(f"{name[0] * 8}-0000-0000-0000-000000000000".replace("t", "b").replace("o", "a"), name)
        flow["nodes"] = [
            {"id": "q", "type": "input"}, history, {"id": "p", "type": "prompt", "params": {"template": "{h}|{q}"}},
            {"id": "k", "type": "history", "params": {"operation": "append", "role": "user"}}, {"id": "a", "type": "output"},
        ]  # fmt: skip
        flow["edges"] = [
            {"source": "h.text", "target": "p.h"}, {"source": "q", "target": "p.q"}, {"source": "q", "target": "k"},
            {"source": "p", "target": "a"},
        ]  # fmt: skip
        flow["origin"]["components"] = [
            component("In", "ChatInput", "In", "chat_input", input="q", nodes=["q"]),
            component("ChatOutput-a", "ChatOutput", "Out", "chat_output", output="a", nodes=["a"]),
        ]
        flow["edges"].append({"source": "k", "target": "b"})
        flow["nodes"].append({"id": "b", "type": "output"})
        await keep(stack, name, flow)

    async def run(flow: str, text: str, **body: Any) -> str:
        status, answer = await post(stack, f"/api/v1/run/{flow}", {"input_value": text} | body)
        assert status == 200, answer
        return said(answer)

    assert [await run("one", "a"), await run("one", "b")] == ["|a", "user: a|b"]
    assert await run("one", "c", session_id="s") == "|c"
    assert await run("one", "d", session_id="s") == "user: c|d"
    assert await run("two", "e", session_id="s") == "|e", "another flow's session of the same name is another"
    long = "l" * 1000
    assert [await run("one", "a", session_id=long), await run("one", "b", session_id=long)] == ["|a", "user: a|b"]
    await ask(stack, "DELETE", "/api/v1/monitor/messages/session/s")
    assert await run("one", "f", session_id="s") == "|f", "what was forgotten is remembered no more"
    assert await run("one", "g") == "user: a\nuser: b|g"


async def test_messages_can_be_filtered_ordered_and_forgotten(stack: Stack) -> None:
    for number in range(3):
        await post(stack, RUN, {"input_value": f"{number}", "session_id": f"s{number % 2}"})
    path = "/api/v1/monitor/messages"

    async def texts(query: str = "") -> list[str]:
        status, answer = await ask(stack, "GET", f"{path}?{query}")
        assert status == 200, answer
        return [each["text"] for each in answer]

    assert await texts() == ["0", "Echo: 0", "1", "Echo: 1", "2", "Echo: 2"]
    assert await texts("sender=User&order=desc") == ["2", "1", "0"]
    assert await texts("session_id=s1") == ["1", "Echo: 1"]
    assert await texts("sender_name=AI&limit=2&offset=1") == ["Echo: 0", "Echo: 1"]
    assert await texts("order_by=text&order=DESC&limit=3") == ["Echo: 2", "Echo: 1", "2"]
    assert await texts("flow_id=nobody") == []
    assert await texts(f"flow_id={TRIVIAL_ID}&limit=1") == ["Echo: 2"]
    for wrong in ("order=up", "order_by=secret"):
        assert (await ask(stack, "GET", f"{path}?{wrong}"))[0] == 400
    assert (await ask(stack, "GET", f"{path}?limit=many"))[0] == 422
    _, every = await ask(stack, "GET", path)
    assert await ask(stack, "DELETE", path, [every[0]["id"]]) == (204, None)
    assert len(await texts()) == 5
    assert (await ask(stack, "GET", f"{path}/sessions"))[1] == ["s0", "s1"]
    gone = {"message": "Messages deleted successfully", "deleted_count": 1}
    assert await ask(stack, "DELETE", f"{path}/sessions", ["s0", "nobody"]) == (200, gone)
    assert await texts() == ["1", "Echo: 1"]
    assert (await ask(stack, "DELETE", path, {"a": 1}))[0] == 422


async def test_a_webhook_gives_the_flow_what_was_posted_and_does_not_wait(stack: Stack) -> None:
    flow = with_model()
    hook = component("Webhook-ggggg", "Webhook", "Webhook", "webhook", input="Webhook-ggggg", nodes=["Webhook-ggggg"])
    flow["origin"]["components"].append(hook)
    flow["origin"]["endpoint_name"] = "hook"
    flow["nodes"][1]["params"]["template"] = "{question}{data}"
    flow["nodes"].append({"id": "Webhook-ggggg", "type": "input", "params": {"required": False}})
    flow["edges"].append({"source": "Webhook-ggggg", "target": "Prompt-bbbbb.data"})
    await keep(stack, "hook", flow)
    waiting, done = asyncio.Event(), asyncio.Event()

    async def wait(index: int) -> None:
        await waiting.wait()

    stack.generation.before = wait
    started = {"message": "Task started in the background", "status": "in progress"}
    assert await post(stack, "/api/v1/webhook/hook", {"order": 7}) == (202, started)
    waiting.set()
    await asyncio.wait_for(stack.generation.closed.wait(), 10)
    done.set()
    assert stack.generation.requests[-1].messages[-1].content == '{"order": 7}'
    assert await post(stack, "/api/v1/webhook/hook", b"") == (
        400, {"detail": "Request body is empty. You should provide a JSON payload containing the flow ID."},
    )  # fmt: skip
    assert (await post(stack, "/api/v1/webhook/hook", b"\xff\xfe"))[0] == 400
    assert (await post(stack, "/api/v1/webhook/nobody", {"a": 1}))[0] == 404


async def test_background_runs_are_bounded_stopped_and_cancelled_when_the_gateway_leaves(tmp_path: Path) -> None:
    async with serving(tmp_path, background_runs_max=1, background_queue_max=1) as stack:
        await keep(stack, "chat", with_model())
        cancelled = asyncio.Event()

        async def wait(_: int) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        stack.generation.before = wait
        body = {"flow_id": MODEL_ID, "input_value": "x", "mode": "background"}
        _, first = await post(stack, "/api/v2/workflows", body | {"idempotency_key": "k"})
        assert (await post(stack, "/api/v2/workflows", body | {"idempotency_key": "k"}))[1]["job_id"] == first["job_id"]
        _, second = await post(stack, "/api/v2/workflows", body)
        status, busy = await post(stack, "/api/v2/workflows", body)
        assert (status, busy["detail"]["code"]) == (503, "SERVICE_BUSY")
        assert (await post(stack, f"/api/v1/webhook/{MODEL_ID}", {"a": 1}))[0] == 429
        while (state := (await ask(stack, "GET", first["links"]["status"]))[1]["status"]) == "queued":
            await asyncio.sleep(0.01)
        assert state == "in_progress"
        assert (await ask(stack, "GET", second["links"]["status"]))[1]["status"] == "queued"
        stop = {"job_id": first["job_id"]}
        said_first = await post(stack, "/api/v2/workflows/stop", stop)
        assert said_first == (200, stop | {"message": f"Job {first['job_id']} cancelled successfully."})
        await asyncio.wait_for(cancelled.wait(), 10)
        again = await post(stack, "/api/v2/workflows/stop", stop)
        assert again[1]["message"] == f"Job {first['job_id']} is already cancelled."
        assert (await ask(stack, "GET", first["links"]["status"]))[1]["status"] == "cancelled"
        events = sse_events((await ask(stack, "GET", first["links"]["events"]))[1])
        assert events[-1][1] == {"event": "cancelled", "data": {"reason": "stopped"}}
        cancelled.clear()
        while (await ask(stack, "GET", second["links"]["status"]))[1]["status"] == "queued":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_job_that_failed_says_why_and_events_can_be_followed_and_taken_up(stack: Stack) -> None:
    released = asyncio.Event()

    async def wait(index: int) -> None:
        await released.wait()
        if index == 3:
            raise ValueError("a secret")

    stack.generation.before = wait
    _, job = await post(stack, "/api/v2/workflows", {"flow_id": MODEL_ID, "input_value": "x", "mode": "background"})
    following = asyncio.create_task(ask(stack, "GET", job["links"]["events"]))
    await asyncio.sleep(0.1)
    released.set()
    _, body = await following
    events = sse_events(body)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert [event["event"] for _, event in events[-2:]] == ["error", "end"]
    _, rest = await ask(stack, "GET", job["links"]["events"], last_event_id=str(len(events) - 1))
    assert sse_events(rest) == events[-1:]
    status, answer = await ask(stack, "GET", job["links"]["status"])
    assert (status, answer["detail"]["code"], "secret" in json.dumps(answer)) == (500, "JOB_FAILED", False)
    assert answer["detail"]["error_detail"].startswith("Error running graph: Error building Component OpenAI")


async def test_workflows_refuse_what_they_cannot_do(stack: Stack) -> None:
    for body, code in (
        ({"stream_protocol": "morse"}, "UNKNOWN_STREAM_PROTOCOL"),
        ({"data": {"nodes": []}}, "MODE_UNSUPPORTED_FIELDS"),
        ({"mode": "stream", "output_ids": ["a"]}, "MODE_UNSUPPORTED_FIELDS"),
    ):
        status, answer = await post(stack, "/api/v2/workflows", {"flow_id": TRIVIAL_ID} | body)
        assert (status, answer["detail"]["code"]) == (422, code)
    status, answer = await post(stack, "/api/v2/workflows", {"flow_id": TRIVIAL_ID, "background": True})
    assert (status, answer["detail"][0]["type"]) == (422, "extra_forbidden")
    status, answer = await ask(stack, "GET", "/api/v2/workflows")
    assert (status, answer["detail"]["code"]) == (400, "MISSING_PARAMETER")
    for method, path, body in (
        ("GET", "/api/v2/workflows?job_id=00000000-0000-0000-0000-000000000001", None),
        ("GET", "/api/v2/workflows/nobody/events", None),
        ("POST", "/api/v2/workflows/stop", {"job_id": "00000000-0000-0000-0000-000000000001"}),
    ):
        status, answer = await ask(stack, method, path, body)
        assert (status, answer["detail"]["code"]) == (404, "JOB_NOT_FOUND")


async def test_a_conversation_by_responses_goes_on_with_its_id(stack: Stack) -> None:
    _, first = await post(stack, "/api/v1/responses", {"model": "bench-trivial", "input": "a"})
    following = {"model": "bench-trivial", "input": "b", "previous_response_id": first["id"]}
    _, second = await post(stack, "/api/v1/responses", following)
    assert (second["id"], second["previous_response_id"]) == (first["id"], first["id"])
    status, answer = await post(stack, "/api/v1/responses", following | {"tools": []})
    assert (status, answer["error"]["code"]) == (200, "tools_not_supported")
    assert (await post(stack, "/api/v1/responses", {"model": "x"}))[0] == 422


async def test_a_client_that_leaves_a_stream_stops_the_run(stack: Stack) -> None:
    async def wait(index: int) -> None:
        if index == 2:
            await asyncio.sleep(60)

    stack.generation.before = wait
    async with stack.http.post(f"{stack.url}{CHAT_RUN}?stream=true", json={"input_value": "x"}) as response:
        await response.content.readuntil(b"token")
    await asyncio.wait_for(stack.generation.closed.wait(), 10)


async def test_a_run_in_the_background_can_be_asked_for_at_any_process_of_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with serving(tmp_path / "a", data_dir=tmp_path / "data") as one:
        await keep(one, "chat", with_model())
        async with serving(tmp_path / "b", data_dir=tmp_path / "data") as other:
            released = asyncio.Event()
            one.generation.before = lambda _: released.wait()
            body = {"flow_id": MODEL_ID, "input_value": "x", "mode": "background"}
            _, job = await post(one, "/api/v2/workflows", body)
            following = asyncio.create_task(ask(other, "GET", job["links"]["events"]))
            await asyncio.sleep(0.1)
            assert (await ask(other, "GET", job["links"]["status"]))[1]["status"] in ("queued", "in_progress")
            released.set()
            _, events = await following
            assert sse_events(events)[-1][1]["event"] == "end"
            status, whole = await ask(other, "GET", job["links"]["status"])
            assert (status, whole["output"]["text"]) == (200, "Denver")
            one.generation.before = lambda _: asyncio.sleep(60)
            _, endless = await post(one, "/api/v2/workflows", body)
            status, stopped = await post(other, "/api/v2/workflows/stop", {"job_id": endless["job_id"]})
            assert (status, stopped["message"]) == (200, f"Job {endless['job_id']} cancelled successfully.")
