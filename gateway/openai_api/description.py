"""What OpenAI's API adds to the gateway's OpenAPI document. OpenAI's own document says the rest; this is what flows take."""

from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBERS: Final[Json] = {
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
}
_EXTENSION: Final[Json] = {
    "type": "object",
    "description": "What OpenAI's API has no place for.",
    "properties": {
        "inputs": {"type": "object", "description": "Values of the flow's other inputs."},
        "overrides": {"type": "object", "description": "Parameters of single nodes, where the flow allows it."},
        "session": {"type": "string", "maxLength": 256, "description": "The conversation that the flow remembers."},
    },
    "additionalProperties": False,
}
_TOOL_FUNCTION: Final[Json] = {
    "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "description": _TEXT,
    "parameters": {"type": "object"},
}


def described() -> Mapping[str, Any]:
    """Its paths and schemas."""
    chat, responses, models = (
        "Chat completions, a flow being the model.",
        "Responses, a flow being the model.",
        "Flows as models.",
    )
    return {
        "paths": {
            "/v1/chat/completions": {
                "post": _posting("OpenAi_ChatCompletions", chat, "OpenAiChatRequest", "OpenAiChatCompletion")
            },
            "/v1/responses": {"post": _posting("OpenAi_Responses", responses, "OpenAiResponseRequest", "OpenAiResponse")},
            "/v1/models": {
                "get": _getting(
                    "OpenAi_ListModels", models, "OpenAiModels", [_query("limit", _limit()), _query("after", _TEXT)]
                )
            },
            "/v1/models/{model}": {"get": _getting("OpenAi_GetModel", "One flow as a model.", "OpenAiModel", [_path("model")])},
        },
        "components": {"schemas": _schemas()},
    }


def _schemas() -> Json:
    return {
        "OpenAiChatRequest": _chat_request(),
        "OpenAiResponseRequest": _response_request(),
        "OpenAiChatCompletion": _answer("chat.completion", {"choices": {"type": "array"}, "usage": {"type": "object"}}),
        "OpenAiResponse": _answer("response", {"output": {"type": "array"}, "status": _TEXT, "usage": {"type": "object"}}),
        "OpenAiModel": _answer("model", {"created": _COUNT, "owned_by": _TEXT}),
        "OpenAiModels": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("OpenAiModel")}}),
        "OpenAiError": _object(
            {
                "error": _object(
                    {
                        "message": _TEXT,
                        "type": _TEXT,
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    }
                )
            }
        ),
    }


def _chat_request() -> Json:
    message = _object({"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}, "content": _content()}, ["role"])
    tool = _object({"type": {"const": "function"}, "function": _object(_TOOL_FUNCTION, ["name"])})
    form = _object({"type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": {"type": "object"}}, ["type"])
    return _object(
        {
            "model": {"type": "string", "description": "A flow's id."},
            "messages": {"type": "array", "minItems": 1, "items": message},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": _object({"include_usage": {"type": "boolean"}}, []),
            "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 8},
            "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
            "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
            "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
            "seed": {"type": ["integer", "null"]},
            "stop": {"type": ["string", "array", "null"], "items": _TEXT, "maxItems": 16},
            "response_format": form,
            "tools": {"type": "array", "items": tool},
            "tool_choice": {"type": ["string", "object"]},
            "parallel_tool_calls": {"type": "boolean"},
            "metadata": {"type": ["object", "null"]},
            "penstock": _EXTENSION,
            **_NUMBERS,
        },
        ["model", "messages"],
    )


def _response_request() -> Json:
    message = _object({"role": {"enum": ["system", "developer", "user", "assistant"]}, "content": _content()})
    return _object(
        {
            "model": {"type": "string", "description": "A flow's id."},
            "input": {"type": ["string", "array"], "minItems": 1, "items": message},
            "instructions": {"type": ["string", "null"]},
            "previous_response_id": {"type": ["string", "null"]},
            "store": {"type": ["boolean", "null"]},
            "stream": {"type": ["boolean", "null"]},
            "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
            "text": _object({"format": _object({"type": _TEXT, "schema": {"type": "object"}}, ["type"])}, []),
            "tools": {"type": "array", "items": _object({"type": {"const": "function"}, **_TOOL_FUNCTION}, ["type", "name"])},
            "tool_choice": {"type": ["string", "object"]},
            "metadata": {"type": ["object", "null"]},
            "penstock": _EXTENSION,
            **_NUMBERS,
        },
        ["model", "input"],
    )


def _content() -> Json:
    return {"type": ["string", "array", "null"], "items": _object({"type": _TEXT, "text": _TEXT}, ["type"])}


def _answer(kind: str, more: Json) -> Json:
    return _object({"id": _TEXT, "object": {"const": kind}, **more, "penstock": {"type": "object"}}, ["id", "object", *more])


def _object(properties: Json, required: list[str] | None = None) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}


def _posting(operation_id: str, summary: str, asked: str, answered: str) -> Json:
    return {
        "operationId": operation_id,
        "tags": ["OpenAI"],
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
        "responses": {
            "200": {
                "description": "The answer, or a stream of it.",
                "content": {"application/json": {"schema": _ref(answered)}, "text/event-stream": {"schema": _TEXT}},
            },
            "default": _failed(),
        },
    }


def _getting(operation_id: str, summary: str, answered: str, parameters: list[Json]) -> Json:
    return {
        "operationId": operation_id,
        "tags": ["OpenAI"],
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": _ref(answered)}}},
            "default": _failed(),
        },
    }


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _limit() -> Json:
    return {"type": "integer", "minimum": 1, "maximum": 1000}


def _failed() -> Json:
    return {"description": "The call failed.", "content": {"application/json": {"schema": _ref("OpenAiError")}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
