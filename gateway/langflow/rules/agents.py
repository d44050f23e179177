"""Agents: without tools a model's answer with the conversation before it; with tools, our bounded loop over them."""

from collections.abc import Callable
from typing import Any, Final

from gateway.langflow.carried import Carried
from gateway.langflow.export import Component
from gateway.langflow.place import Place
from gateway.langflow.rendering import computed
from gateway.langflow.rules.history import TURNS_MAX, reading
from gateway.langflow.rules.models import asked, prompt, system, tuned
from gateway.langflow.rules.retrieval import retrieving
from gateway.langflow.rules.structured import give_objects, object_schema, several
from gateway.values import PortType

ROUNDS_MAX: Final = 64
TAKEN: Final = frozenset({"model", "max_tokens", "temperature", "top_p", "top_k", "seed"})
"""Of a model's parameters those that our agent has too."""

MODELS: Final = ("agent_llm", "model", "llm")
DATE, MODEL_NAME, CONTEXT = "{current_date}", "{model_name}", "{optional_user_context}"
BUILT_IN: Final = {"add_current_date_tool": "current date", "add_calculator_tool": "calculator"}


def agent(place: Place) -> None:
    """An agent. Its built-in tools alone do not make it one: a model answers such a prompt by itself."""
    tools = place.tools("tools")
    if len(tools) < len(place.arriving.get("tools", ())):
        place.note("what is connected to its tools and is no tool is left out")
    has_calculator = bool(tools) and place.component.flag("add_calculator_tool")
    left_out = [name for field, name in BUILT_IN.items() if place.component.flag(field)]
    if has_calculator:
        left_out.remove(BUILT_IN["add_calculator_tool"])
    if left_out:
        place.note(f"without its built-in tools: {', '.join(left_out)}")
    if tools:
        _with_tools(place, tools)
    else:
        _without_tools(place)


def dated(place: Place, port: str) -> str:
    """A port that gives a text with today's date in the place of {current_date}."""
    name = place.draft.claim("", f"{place.component.id}-current_date")
    today = place.input(name, {"type": "text", "required": False, "variable": "CURRENT_DATE"}, part="current_date")
    expression = f'text.replace("{DATE}", today)'
    return computed(place, expression, PortType.TEXT, {"text": port, "today": today}, part="system")


def _without_tools(place: Place) -> None:
    model = place.model(*MODELS)
    params, inputs = asked(place, model), {"prompt": prompt(place)}
    _instructions(place, params, inputs)
    _with_history(place, params)
    if place.wants("structured_response"):
        _structured(place, params, inputs)
    if not place.wants("response", "text"):
        return
    node = place.add("generate", params, inputs)
    tuned(model, node)
    _tuned_agent(place, node, has_system="system" not in inputs)
    place.gives("response", Carried(port=f"{node}.text", type=PortType.TEXT))
    place.everything = Carried(port=f"{node}.text", type=PortType.TEXT)
    place.note(f"answered by our model {place.options.model!r}")


def _instructions(place: Place, params: dict[str, Any], inputs: dict[str, str]) -> None:
    """The agent's instructions, with what it puts in the place of some names in braces."""
    system(place, "system_prompt", params, inputs)
    text: str = params.get("system", "").replace(MODEL_NAME, place.options.model).replace(CONTEXT, "")
    if text:
        params["system"] = text
    if DATE in text:
        del params["system"]
        inputs["system"] = dated(place, place.constant("system_prompt", text))


def _with_history(place: Place, params: dict[str, Any]) -> None:
    turns = _turns(place)
    if turns:
        params |= {"history": True, "history_max": turns}


def _turns(place: Place) -> int:
    count = place.component.number("n_messages")
    return 0 if not place.has("n_messages") or count is None else min(max(int(count), 0), TURNS_MAX)


def _tuned_agent(place: Place, node: str, *, has_system: bool) -> None:
    if has_system:
        place.tunes("system_prompt", f"{node}.system")
    if _turns(place):
        place.tunes("n_messages", f"{node}.history_max")


def _structured(place: Place, params: dict[str, Any], inputs: dict[str, str]) -> None:
    """The answer in the form of the agent's table: an object, or several."""
    instructions = place.written("format_instructions")
    form: dict[str, Any] = {"json_object": True}
    has_schema = bool(place.component.fields["output_schema"].value) if place.has("output_schema") else False
    if has_schema:
        form = {"json_schema": several(object_schema(place))}
    asking, around = {**params, "caller_sampling": False, "partial_json": True, "structured_output": form}, dict(inputs)
    if "system" in inputs:
        template = "{system}\n\n" + instructions.replace("{", "{{").replace("}", "}}")
        node = place.add("prompt", {"template": template}, {"system": inputs["system"]}, part="instructions")
        around["system"] = f"{node}.text"
    else:
        asking["system"] = "\n\n".join(text for text in (params.get("system", ""), instructions) if text)
    node = place.add("generate", asking, around, part="structured" if place.wants("response") else "")
    tuned(place.model(*MODELS), node)
    give_objects(place, f"{node}.json", one=not has_schema, wrapped=False)
    if place.everything is not None:
        place.gives("structured_response", place.everything)


def _with_tools(place: Place, tools: list[Component]) -> None:
    model = place.model(*MODELS)
    sampling, inputs = asked(place, model), {"prompt": prompt(place)}
    params = {name: value for name, value in sampling.items() if name in TAKEN}
    _instructions(place, params, inputs)
    _with_history(place, params)
    params["tools"] = _declared(place, tools)
    rounds = place.component.number("max_iterations")
    params["max_rounds"] = min(max(int(rounds or 15), 1), ROUNDS_MAX)
    node = place.add("agent", params, inputs)
    tuned(model, node, TAKEN)
    _tuned_agent(place, node, has_system="system" not in inputs)
    if place.has("max_iterations"):
        place.tunes("max_iterations", f"{node}.max_rounds")
    text = Carried(port=f"{node}.text", type=PortType.TEXT)
    if place.wants("structured_response"):
        _structured(place, {"model": place.options.model}, {"prompt": text.port})
    place.gives("response", text)
    place.everything = text


def _declared(place: Place, tools: list[Component]) -> list[dict[str, Any]]:
    declared: list[dict[str, Any]] = []
    made = [TOOLS[tool.kind](place, tool) for tool in tools if tool.kind in TOOLS]
    if place.component.flag("add_calculator_tool") and not any(tool.kind == "Calculator" for tool in tools):
        made.append(_calculator(place, place.component))
    for number, tool in enumerate(made, start=1):
        taken = {each["name"] for each in declared}
        declared.append(tool if tool["name"] not in taken else {**tool, "name": f"{tool['name']}_{number}"})
    return declared


def _calculator(place: Place, tool: Component) -> dict[str, Any]:  # noqa: ARG001  # One of several.
    return {
        "name": "calculate",
        "description": "Computes an arithmetic expression of numbers: + - * / ** and parentheses.",
        "node": {"type": "calculator", "params": {}},
        "arguments": {"expression": "Such as 4*4*(33/22)+12-20."},
    }


def _sql(place: Place, tool: Component) -> dict[str, Any]:
    place.note(f"{tool.id} reads the gateway's SQL connection {place.options.connection!r}, whatever URL it had")
    return {
        "name": "query_database",
        "description": "Runs one SQL query that reads (SELECT) and gives its rows.",
        "node": {"type": "sql", "params": {"connection": place.options.connection}},
        "arguments": {"query": "The SQL query, with its values written out."},
    }


def _history(place: Place, tool: Component) -> dict[str, Any]:
    return {
        "name": "recall",
        "description": "Gives the earlier turns of this conversation.",
        "node": {"type": "history", "params": reading(place, tool)},
    }


def _retrieve(place: Place, tool: Component) -> dict[str, Any]:
    return {
        "name": "search",
        "description": "Finds the passages that are nearest to a query.",
        "node": {"type": "retrieve", "params": retrieving(place, tool)},
        "arguments": {"query": "What to look for, in words."},
    }


TOOLS: Final[dict[str, Callable[[Place, Component], dict[str, Any]]]] = {
    "Calculator": _calculator,
    "SQL": _sql,
    "Memory": _history,
    "MemoryBase": _history,
    "Knowledge": _retrieve,
    "VectorStore": _retrieve,
}
"""What an agent of ours may be given, by the component's kind."""
