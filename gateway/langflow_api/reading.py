"""Bodies of LangFlow's requests: read, checked, and what is wrong with them as FastAPI would say it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.langflow_api import multipart
from gateway.langflow_api.calls import check_form, check_json
from gateway.langflow_api.wording import Refused, refused
from gateway.values import DEPTH_MAX, is_deeper
from penstock.transcoding.dialect import DialectCall

TWEAKS_MAX: Final = 512
INPUTS_MAX: Final = 32
SESSION_CHARS_MAX: Final = 1024
_FORM_FIELDS: Final = ("input_value", "input_type", "output_type", "output_component", "session_id", "user_id")
_ERRORS_MAX: Final = 20
# What pydantic says of a fault out of the field's own schema; the rest of its context may quote what was sent.
_CONTEXT: Final = frozenset({"expected", "ge", "gt", "le", "lt", "max_length", "min_length", "pattern"})
_BOOLEANS: Final = {"1": True, "true": True, "on": True, "yes": True, "t": True, "y": True} | {
    "0": False, "false": False, "off": False, "no": False, "f": False, "n": False,
}  # fmt: skip

M = TypeVar("M", bound=BaseModel)
InputType = Literal["chat", "text", "any"]
OutputType = Literal["chat", "text", "any", "debug"]
Tweaks = Annotated[dict[str, Any], Field(max_length=TWEAKS_MAX)]
SessionId = Annotated[str, Field(max_length=SESSION_CHARS_MAX)]
Globals = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=256)], Annotated[str, Field(max_length=64 * 1024)]],
    Field(max_length=TWEAKS_MAX),
]


class RunRequest(BaseModel):
    """Body of /api/v1/run/{flow}. Unknown fields are passed over, as LangFlow does."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input_value: str | None = Field(default=None, description="What the flow's chat input, or text input, is given.")
    input_type: InputType | None = Field(default="chat", description="Which inputs take the input_value.")
    output_type: OutputType | None = Field(
        default="chat", description='Which outputs are answered: those of this type; "any", all; "debug", every component.'
    )
    output_component: str | None = Field(default="", description="The one component whose output is answered.")
    tweaks: Tweaks | None = Field(
        default=None, description="Values of components' fields for this run: by component id or name, or for all of them."
    )
    session_id: SessionId | None = Field(default=None, description="The conversation. Left out: the flow's own id.")
    user_id: str | None = Field(default=None, description="Taken and not used.")


class InputRequest(BaseModel):
    """One of the inputs of an advanced run."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    components: list[str] | None = Field(default=None, max_length=TWEAKS_MAX, description="Ids or names of input components.")
    input_value: str | None = Field(default=None, description="What they are given.")
    type: InputType | None = Field(default="any", description="Which inputs take it.")


class AdvancedRequest(BaseModel):
    """Body of /api/v1/run/advanced/{flow}. The flow is run once for each input."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: Annotated[list[InputRequest], Field(max_length=INPUTS_MAX)] | None = None
    outputs: Annotated[list[str], Field(max_length=TWEAKS_MAX)] | None = None
    tweaks: Tweaks | None = None
    stream: bool = False
    session_id: SessionId | None = None


class WorkflowRequest(BaseModel):
    """Body of /api/v2/workflows. `flow_id` may be any name of a flow, not its UUID alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow_id: str = Field(max_length=256, description="The flow: LangFlow's id, its endpoint name, or its id here.")
    input_value: str = Field(default="", description="What the chat input is given.")
    tweaks: Tweaks = Field(default={}, description="Values of components' fields, by component id.")
    session_id: SessionId | None = None
    mode: Literal["sync", "stream", "background"] = "sync"
    stream_protocol: str = Field(default="langflow", max_length=64, description='"langflow" or "agui".')
    expose_graph_state: bool | None = None
    data: dict[str, Any] | None = None
    files: list[str] | None = None
    start_component_id: str | None = None
    stop_component_id: str | None = None
    output_ids: Annotated[list[str], Field(max_length=TWEAKS_MAX)] | None = None
    globals: Globals = Field(default={}, description="Values of global variables for this run.")
    idempotency_key: str | None = Field(default=None, max_length=255)


class StopRequest(BaseModel):
    """Body of /api/v2/workflows/stop."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    job_id: str = Field(max_length=64)


class ResponsesRequest(BaseModel):
    """Body of /api/v1/responses."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = Field(max_length=256, description="The flow.")
    input: str = Field(description="What its chat input is given.")
    stream: bool = False
    background: bool = False
    tools: list[Any] | None = Field(default=None, description="Not taken.")
    previous_response_id: SessionId | None = Field(default=None, description="The conversation that goes on.")
    include: list[str] | None = None


def run_request(call: DialectCall) -> RunRequest:
    """The body of a run, JSON or a form. Raises Refused, MalformedRequest."""
    kind = call.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        check_form(call)
        return read(_form(multipart.fields(call.body, kind)), RunRequest)
    return body(call, RunRequest)


def body(call: DialectCall, model: type[M]) -> M:
    """The body as `model`, which stands for nothing at all where there is none. Raises Refused, MalformedRequest."""
    check_json(call)
    value = loads(call.body)
    return read({} if value is None else value, model)


def loads(text: bytes) -> Any:
    """JSON, None where there is nothing. Raises Refused."""
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        fault = {"type": "json_invalid", "loc": ["body", _position(text)], "msg": "JSON decode error"}
        raise refused(422, [fault]) from None


def read(value: object, model: type[M]) -> M:
    """A JSON value as `model`. Raises Refused."""
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise refused(422, [{"type": "model_attributes_type", "loc": ["body"], "msg": message}])
    try:
        request = model.model_validate(value)
    except ValidationError as error:
        raise _faults(error) from None
    if any(isinstance(each, dict | list) for each in value.values()) and is_deeper(value, DEPTH_MAX):
        raise refused(422, [{"type": "value_error", "loc": ["body"], "msg": f"nested more than {DEPTH_MAX} deep"}])
    return request


def flag(query: Mapping[str, str], name: str) -> bool:
    """A yes or no of the query. Raises Refused."""
    value = query.get(name)
    if value is None:
        return False
    known = _BOOLEANS.get(value.lower())
    if known is None:
        message = "Input should be a valid boolean, unable to interpret input"
        raise refused(422, [{"type": "bool_parsing", "loc": ["query", name], "msg": message}])
    return known


def number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A count of the query, `default` where there is none or 0, at most `most`. Raises Refused."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise refused(422, [{"type": "int_parsing", "loc": ["query", name], "msg": message}])
    return min(int(text) or default, most)


def _form(parts: Mapping[str, multipart.Part]) -> dict[str, Any]:
    """The fields of a form that a run knows. Tweaks that are no JSON are passed over, as LangFlow does; so are files."""
    found: dict[str, Any] = {name: parts[name].text for name in _FORM_FIELDS if name in parts and parts[name].filename is None}
    if "tweaks" in parts:
        with suppress(orjson.JSONDecodeError):
            found["tweaks"] = orjson.loads(parts["tweaks"].data)
    return found


def _position(text: bytes) -> int:
    """Where Python's own reader stops, which is what FastAPI tells."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos
    except (ValueError, RecursionError):
        pass
    return 0


def _faults(error: ValidationError) -> Refused:
    told = []
    for fault in error.errors(include_url=False, include_input=False)[:_ERRORS_MAX]:
        entry: dict[str, Any] = {"type": fault["type"], "loc": ["body", *fault["loc"]], "msg": fault["msg"]}
        context = {name: value for name, value in fault.get("ctx", {}).items() if name in _CONTEXT}
        told.append(entry | ({"ctx": context} if context else {}))
    return refused(422, told)
