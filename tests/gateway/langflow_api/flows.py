"""The flows that the captured answers are of, as they are after their import, and what it takes to compare answers."""

import json
from pathlib import Path
from typing import Any

CAPTURED = Path(__file__).parent / "captured"
TRIVIAL_ID = "a0d05fc7-66eb-4818-9191-ee9acc03848e"
MODEL_ID = "976e4b7b-e083-42e4-9383-808913efe099"
ANSWER = ("Hello", " from", " the", " fake", " model.", " This", " is", " a", " short", " fixed", " answer.")

# Not the same from run to run.
CHANGING = {
    "id", "timestamp", "run_id", "graph_run_id", "timedelta", "duration", "created_at", "created", "job_id",
    "created_timestamp", "build_duration", "updated_at", "folder_id", "runId", "messageId",
}  # fmt: skip


def captured(name: str) -> str:
    return (CAPTURED / name).read_text()


def same(answer: Any) -> Any:
    """An answer without what changes: the kinds of values in its place."""
    if isinstance(answer, dict):
        return {key: type(value).__name__ if key in CHANGING else same(value) for key, value in answer.items()}
    return [same(each) for each in answer] if isinstance(answer, list | tuple) else answer


def component(component_id: str, kind: str, name: str, role: str = "", **more: Any) -> dict[str, Any]:
    return {"id": component_id, "type": kind, "display_name": name, "role": role, "protected": ["code"], **more}


CHAT_INPUT = component(
    "ChatInput-aaaaa", "ChatInput", "Chat Input", "chat_input", input="ChatInput-aaaaa", sender_name="User",
    nodes=["ChatInput-aaaaa"], fields={"input_value": "input:ChatInput-aaaaa"},
)  # fmt: skip
PROMPT = component(
    "Prompt Template-bbbbb", "Prompt Template", "Prompt Template", nodes=["Prompt-bbbbb"],
    fields={"template": "Prompt-bbbbb.template"},
)  # fmt: skip
CHAT_OUTPUT = component(
    "ChatOutput-ccccc", "ChatOutput", "Chat Output", "chat_output", output="ChatOutput-ccccc", sender_name="AI",
    nodes=["ChatOutput-ccccc"],
    source={"id": "Prompt Template-bbbbb", "display_name": "Prompt Template", "type": "Prompt Template"},
)  # fmt: skip
MODEL = component(
    "OpenAIModel-ddddd", "ext:openai:OpenAIModelComponent@official", "OpenAI", nodes=["OpenAIModel-ddddd"],
    fields={"temperature": "OpenAIModel-ddddd.temperature", "max_tokens": "OpenAIModel-ddddd.max_tokens"},
    variables={"system_message": "PERSONA"},
)  # fmt: skip
MODEL["fields"]["system_message"] = "OpenAIModel-ddddd.system"
MODEL_SOURCE = {"id": "OpenAIModel-ddddd", "display_name": "OpenAI", "type": "gpt-4o-mini"}


def origin(flow_id: str, name: str, *components: dict[str, Any]) -> dict[str, Any]:
    about = {"format": "langflow", "id": flow_id, "name": name, "endpoint_name": name, "version": "1.13.0"}
    return about | {"components": list(components)}


def trivial() -> dict[str, Any]:
    """ChatInput -> Prompt -> ChatOutput."""
    return {
        "description": "bench",
        "overrides": "all",
        "origin": origin(TRIVIAL_ID, "bench-trivial", CHAT_INPUT, PROMPT, CHAT_OUTPUT),
        "nodes": [
            {"id": "ChatInput-aaaaa", "type": "input", "params": {"required": False, "default": ""}},
            {"id": "Prompt-bbbbb", "type": "prompt", "params": {"template": "Echo: {question}"}},
            {"id": "ChatOutput-ccccc", "type": "output"},
        ],
        "edges": [
            {"source": "ChatInput-aaaaa", "target": "Prompt-bbbbb.question"},
            {"source": "Prompt-bbbbb", "target": "ChatOutput-ccccc"},
        ],
    }


def with_model() -> dict[str, Any]:
    """ChatInput -> Prompt -> OpenAI -> ChatOutput."""
    flow = trivial()
    fed = CHAT_OUTPUT | {"source": MODEL_SOURCE | {"icon": "OpenAI"}}
    flow["origin"] = origin(MODEL_ID, "bench-llm200", CHAT_INPUT, PROMPT, fed, MODEL)
    flow["nodes"][1]["params"]["template"] = "Answer briefly: {question}"
    flow["nodes"].append({"id": "OpenAIModel-ddddd", "type": "generate", "params": {"temperature": 0.1}})
    flow["edges"][1] = {"source": "Prompt-bbbbb", "target": "OpenAIModel-ddddd.prompt"}
    flow["edges"].append({"source": "OpenAIModel-ddddd.text", "target": "ChatOutput-ccccc"})
    return flow


async def keep(stack: Any, flow_id: str, flow: dict[str, Any]) -> None:
    from penstock.flow.v1 import flow_pb2

    await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id=flow_id, document=json.dumps(flow)))


def json_events(body: str) -> list[dict[str, Any]]:
    """The events of /api/v1/run's stream: a JSON object and an empty line each."""
    assert body.endswith("\n\n")
    return [json.loads(part) for part in body[:-2].split("\n\n")]


def sse_events(body: str) -> list[tuple[int, dict[str, Any]]]:
    """The events of /api/v2/workflows."""
    found = []
    for part in body.strip().split("\n\n"):
        data, number = part.split("\n")
        found.append((int(number.removeprefix("id: ")), json.loads(data.removeprefix("data: "))))
    return found
