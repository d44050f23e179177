"""Tools that are bound to a chat model: which the model may call, whether it must, and in what form it says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.utils.function_calling import convert_to_openai_tool

from penstock.errors import InvalidArgument
from penstock.tool_actions import CALLS_MAX, ActionTool, action_schema, instructions

_ANY: Final = frozenset({"any", "required"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundTools:
    """The tools of one call. `must_call`: an answer in words is none."""

    tools: tuple[ActionTool, ...]
    must_call: bool
    calls_max: int

    @property
    def instructions(self) -> str:
        """What the model is told."""
        return instructions(self.tools, must_call=self.must_call)

    @property
    def schema(self) -> Mapping[str, Any]:
        """What its answer is held to."""
        return action_schema(self.tools, must_call=self.must_call, calls_max=self.calls_max)


def bound_tools(tools: Sequence[Any] | None, choice: Any, *, parallel: bool) -> BoundTools | None:
    """The tools as LangChain binds them; None where there are none to call. Raises InvalidArgument for a wrong choice."""
    given = tuple(map(_tool, tools or ()))
    if not given or choice == "none":
        return None
    calls_max = CALLS_MAX if parallel else 1
    if choice in {None, "auto", False}:
        return BoundTools(tools=given, must_call=False, calls_max=calls_max)
    if choice is True or choice in _ANY:
        return BoundTools(tools=given, must_call=True, calls_max=calls_max)
    chosen = tuple(tool for tool in given if tool.name == choice)
    if not chosen:
        names = ", ".join(tool.name for tool in given)
        raise InvalidArgument(f"tool_choice is auto, none, any, or the name of a bound tool ({names}); not {choice!r}")
    return BoundTools(tools=chosen, must_call=True, calls_max=calls_max)


def chosen_name(choice: Any) -> Any:
    """A tool_choice with OpenAI's {"type": "function", "function": {"name": ...}} as the name alone."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        return function.get("name") if isinstance(function, Mapping) else choice.get("name", choice.get("type"))
    return choice


def _tool(tool: Any) -> ActionTool:
    function = convert_to_openai_tool(tool)["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ActionTool(name=function["name"], description=function.get("description", ""), parameters=parameters)
