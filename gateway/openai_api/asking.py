"""What a caller asks of a flow, whichever of OpenAI's requests it came in, and the run that this becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.execution import ChatMessage
from gateway.nodes.calling import CLOSING, OPENING
from gateway.openai_api.fields import Fields, an_object, refused, shallow
from gateway.openai_api.flow_as_model import FlowAsModel
from gateway.structs import to_struct
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.flow.v1 import flow_pb2
from penstock.tool_actions import CALLS_MAX, ActionTool, action_schema

MESSAGES_MAX: Final = 2000
TOOLS_MAX: Final = 128
EXTENSION: Final = "penstock"
"""The field of requests and answers for what OpenAI's API has no place for."""
SESSION_HEADER: Final = "x-penstock-session"

_NUMBERS: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "min_p", "repetition_penalty")
_WHOLE: Final = frozenset({"seed", "top_k", "min_tokens"})
_NUMERIC: Final = _WHOLE.union(_NUMBERS)
SAMPLING_PARAMS: Final = _NUMERIC | {"stop"}
"""min_p, repetition_penalty, top_k and min_tokens are not OpenAI's; other servers of its API take them under these names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the caller would run. `parameters` is the text of a JSON Schema."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. `messages` are all turns of the conversation, the newest last; `form` is the form of the answer.

    `inputs` are values of the flow's other inputs, `overrides` parameters of its nodes. `said` is the parameter that had the
    messages, `form_param` the one that had the form.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, Any] | None = None
    form_param: str = ""
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    one_call_at_most: bool = False
    session: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    said: str = "messages"


def run_fields(asked: Asked, flow: FlowAsModel, before: Sequence[ChatMessage] = ()) -> dict[str, Any]:
    """The fields of RunFlowRequest and StreamFlowRequest. `before` are turns that stand before those of the request.

    Raises InvalidArgument for what this flow cannot be asked.
    """
    if not flow.question:
        raise FailedPrecondition(
            f"the flow {asked.model!r} takes no text, so it cannot be talked to; run it by POST /v1/flows/{asked.model}:run"
        )
    if asked.tools and not flow.takes_tools:
        raise refused("tools", 'none of the flow\'s generate nodes calls a caller\'s tools; one would need "tools": "caller"')
    last, earlier = _split((*before, *asked.messages), asked.said)
    sampling, overrides, tools = dict(asked.sampling), asked.overrides, asked.tools
    if asked.form is not None:
        sampling["structured_output"] = _form(asked, flow)
    if asked.must_call:
        sampling["structured_output"], tools = _must_call(asked, flow), ()
    if flow.question in asked.inputs:
        raise refused(f"{EXTENSION}.inputs.{flow.question}", "is given by the last message of the user")
    return {
        "name": f"flows/{asked.model}",
        "inputs": to_struct({**asked.inputs, flow.question: last}),
        "session": asked.session,
        "messages": [flow_pb2.ChatMessage(role=each.role, content=each.content) for each in earlier],
        "sampling": to_struct(sampling) if sampling else None,
        "overrides": to_struct(overrides) if overrides else None,
        "tools": [flow_pb2.Tool(name=each.name, description=each.description, parameters=each.parameters) for each in tools],
    }


def _form(asked: Asked, flow: FlowAsModel) -> Mapping[str, Any]:
    assert asked.form is not None  # noqa: S101  # The caller has looked.
    if asked.tools:
        raise refused(asked.form_param, "an answer in a form cannot call tools: leave one of them out")
    if not flow.shapes_one:
        problem = "the flow asks models more than once, and would get this form from all of them"
        raise refused(asked.form_param, problem, advice='it needs "caller_sampling": false on the generate nodes inside')
    return asked.form


def _split(messages: Sequence[ChatMessage], said: str) -> tuple[str, Sequence[ChatMessage]]:
    """What the flow is asked, and the turns before it.

    Where something was said since, as the result of a tool, the question is the flow's input and stands in its place as well.
    """
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user":
            return messages[at].content, messages[:at] if at == len(messages) - 1 else messages
    raise refused(said, "has no message of the user")


def read_sampling(fields: Fields, longest: str | None) -> dict[str, Any]:
    """The parameters of sampling that are given; the ranges are checked where the run begins."""
    found: dict[str, Any] = {}
    for name in fields.values.keys() & _NUMERIC:
        value = fields.whole(name) if name in _WHOLE else fields.number(name)
        if value is not None:
            found[name] = value
    if stop := fields.texts("stop"):
        found["stop"] = stop
    if longest is not None and (most := fields.whole(longest)) is not None:
        found["max_tokens"] = most
    return found


def read_extension(fields: Fields) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """Inputs, overrides and the session of the extension field."""
    if fields.values.get(EXTENSION) is None:
        return {}, {}, ""
    given = fields.part(EXTENSION)
    given.check_names({"inputs", "overrides", "session"}, {})
    inputs, overrides = given.part("inputs").values, given.part("overrides").values
    return (
        shallow(inputs, f"{EXTENSION}.inputs") if inputs else inputs,
        shallow(overrides, f"{EXTENSION}.overrides") if overrides else overrides,
        given.text("session"),
    )


def read_session(fields: Fields, headers: Mapping[str, str], extension: str) -> str:
    """The conversation that the run belongs to: the extension's, that of the header, or metadata's session_id."""
    if extension:
        return extension
    metadata = fields.values.get("metadata")
    named = metadata.get("session_id") if isinstance(metadata, dict) else None
    return headers.get(SESSION_HEADER, "") or (named if isinstance(named, str) else "")


def read_form(given: Fields, schema: Fields) -> Mapping[str, Any] | None:
    """A response_format, or text.format: what the answer's form is. `schema` has the "schema" of a json_schema."""
    kind = given.text("type")
    if kind in {"", "text"}:
        return None
    if kind == "json_object":
        return {"json_object": True}
    if kind != "json_schema":
        raise refused(given.param("type"), f'is "text", "json_object" or "json_schema"; not {kind[:40]!r}')
    param = schema.param("schema")
    # As text: what carries a run's sampling would not keep the order of the properties, and with it that of the answer's.
    return {"json_schema": json_text(an_object(schema.values.get("schema"), param), param)}


def read_tool(function: Fields) -> Tool:
    """A function; its name and schema are checked where the run begins."""
    parameters, param = function.values.get("parameters"), function.param("parameters")
    return Tool(
        name=function.text("name", required=True),
        description=function.text("description"),
        parameters="" if parameters is None else json_text(an_object(parameters, param), param),
    )


def json_text(value: Any, param: str) -> str:
    """A JSON value as text."""
    return orjson.dumps(shallow(value, param)).decode()


def read_tools(fields: Fields, function_of: Callable[[Fields], Fields]) -> tuple[tuple[Tool, ...], bool]:
    """The tools that may be called, and whether some must be. `function_of` is the part of a tool that has its name."""
    if not fields.values.get("tools"):
        fields.items("tools", TOOLS_MAX)
        return (), False
    choice = fields.values.get("tool_choice")
    tools = tuple(
        _tool(each, fields.param(f"tools[{at}]"), function_of) for at, each in enumerate(fields.items("tools", TOOLS_MAX))
    )
    if choice == "none" or not tools:
        return (), False
    if choice is None or choice in ("auto", "required"):
        return tools, choice == "required"
    name = function_of(fields.part("tool_choice")).text("name") if isinstance(choice, dict) else ""
    named = tuple(tool for tool in tools if tool.name == name)
    if not named:
        raise refused("tool_choice", 'is "auto", "none", "required", or one of the tools by its name')
    return named, True


def _tool(value: Any, place: str, function_of: Callable[[Fields], Fields]) -> Tool:
    tool = Fields(an_object(value, place), f"{place}.")
    if (kind := tool.text("type", required=True)) != "function":
        raise refused(tool.param("type"), f"is function; not {kind[:40]!r}")
    return read_tool(function_of(tool))


def called(name: str, arguments: str) -> str:
    """A call that a model asked for in an earlier turn, as it stands in the conversation: in the form in which it asked."""
    try:
        read = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the arguments of the call of {name[:64]!r} are not JSON: {error}") from error
    return f"{OPENING}\n{orjson.dumps({'name': name, 'arguments': read}).decode()}\n{CLOSING}"


def _must_call(asked: Asked, flow: FlowAsModel) -> Mapping[str, Any]:
    """The form of an answer that is a call."""
    if not flow.shapes_one:
        raise refused("tool_choice", "the flow asks models more than once, and would have all of them call a tool")
    tools = [
        ActionTool(name=each.name, description=each.description, parameters=orjson.loads(each.parameters or "{}"))
        for each in asked.tools
    ]
    schema = action_schema(tools, must_call=True, calls_max=1 if asked.one_call_at_most else CALLS_MAX)
    return {"json_schema": orjson.dumps(schema).decode()}
