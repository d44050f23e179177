"""Answers in a form, read into what the caller asked for."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final, Literal

from langchain_core.output_parsers import JsonOutputKeyToolsParser, JsonOutputParser, PydanticOutputParser, PydanticToolsParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from penstock.errors import InvalidArgument

Method = Literal["json_schema", "json_mode", "function_calling"]
_METHODS: Final = ("json_schema", "json_mode", "function_calling")


def binding(schema: dict[str, Any] | type, method: str) -> tuple[dict[str, Any], OutputParserLike[Any]]:
    """What is bound to a model so that it answers by `schema`, and what reads its answer. Raises InvalidArgument."""
    if method not in _METHODS:
        raise InvalidArgument(f"method is one of {', '.join(_METHODS)}; not {method!r}")
    tool = convert_to_openai_tool(schema)
    told = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": _described(schema, tool, method)}}
    if method == "function_calling":
        name = tool["function"]["name"]
        reading: OutputParserLike[Any] = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if _is_model(schema)
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
        return {"tools": [tool], "tool_choice": name, "parallel_tool_calls": False, **told}, reading
    form = {"json_schema": convert_to_json_schema(schema)} if method == "json_schema" else {"json_object": True}
    parser = PydanticOutputParser(pydantic_object=schema) if _is_model(schema) else JsonOutputParser()
    return {"structured_output": form, **told}, parser


def with_raw(model: Runnable[Any, Any], parser: OutputParserLike[Any]) -> Runnable[Any, Any]:
    """The model's message, what was read from it, and what went wrong in that: {"raw", "parsed", "parsing_error"}."""
    reading = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | reading.with_fallbacks([unread], exception_key="parsing_error")


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _described(schema: Any, tool: Mapping[str, Any], method: str) -> Any:
    """What LangChain's callbacks are told of the form."""
    return tool if method == "function_calling" else convert_to_json_schema(schema)
