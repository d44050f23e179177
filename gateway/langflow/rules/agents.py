"""Agents: without tools a model's answer with the conversation before it; with tools, our bounded loop over them."""

from collections.abc import Callable
from typing import Any, Final

from gateway.langflow.carried import Carried
from gateway.langflow.export import Component
from gateway.langflow.place import Place
from gateway.langflow.rules.history import TURNS_MAX, reading
from gateway.langflow.rules.models import asked, prompt, system, tuned
from gateway.langflow.rules.retrieval import retrieving
from gateway.langflow.rules.structured import give_objects, object_schema, several
from gateway.values import PortType

ROUNDS_MAX: Final = 50
BUILT_IN: Final = {"add_current_date_tool": "current date", "add_calculator_tool": "calculator"}
PLACEHOLDERS: Final = ("{current_date}", "{model_name}", "{optional_user_context}")


def agent(place: Place) -> None:
    """An agent. Its built-in tools alone do not make it one: a model answers such a prompt by itself."""
    built_in = [name for field, name in BUILT_IN.items() if place.component.flag(field)]
    if built_in:
        place.note(f"its built-in tools ({', '.join(built_in)}) are left out")
    tools = place.tools("tools")
    if len(tools) < len(place.arriving.get("tools", ())):
        place.note("what is connected to its tools and is no tool is left out")
    if tools:
        _with_tools(place, tools)
    else:
        _without_tools(place)


def _asking(place: Place) -> Component:
    found = (place.model(name) for name in ("agent_llm", "model", "llm"))
    return next((each for each in found if each is not None), place.component)


def _without_tools(place: Place) -> None:
    model = _asking(place)
    params, inputs = asked(place, model), {"prompt": prompt(place)}
    system(place, "system_prompt", params, inputs)
    _with_history(place, params)
    if place.wants("structured_response"):
        _structured(place, params, inputs)
    if not place.wants("response", "text"):
        return
    node = place.add("generate", params, inputs)
    tuned(place, model, node)
    _tuned_agent(place, node, "history_max", has_system="system" not in inputs)
    place.gives("response", Carried(port=f"{node}.text", type=PortType.TEXT))
    place.everything = Carried(port=f"{node}.text", type=PortType.TEXT)
    place.note(f"answered by our model {place.options.model!r}")


def _with_history(place: Place, params: dict[str, Any]) -> None:
    turns = _turns(place)
    if turns:
        params |= {"history": True, "history_max": turns}


def _turns(place: Place) -> int:
    count = place.component.number("n_messages")
    return 0 if not place.has("n_messages") or count is None else min(max(int(count), 0), TURNS_MAX)


def _tuned_agent(place: Place, node: str, history: str, *, has_system: bool) -> None:
    if has_system:
        place.tunes("system_prompt", f"{node}.system")
    if history and _turns(place):
        place.tunes("n_messages", f"{node}.{history}")


def _structured(place: Place, params: dict[str, Any], inputs: dict[str, str]) -> None:
    """The answer in the form of the agent's table: an object, or several."""
    instructions = place.written("format_instructions")
    form: dict[str, Any] = {"json_object": True}
    has_schema = bool(place.component.fields["output_schema"].value) if place.has("output_schema") else False
    if has_schema:
        form = {"json_schema": several(object_schema(place))}
    asking = {**params, "caller_sampling": False, "structured_output": form}
    if "system" in inputs:
        place.note("format_instructions stand in for nothing: system_prompt is connected")
    else:
        asking["system"] = "\n\n".join(text for text in (params.get("system", ""), instructions) if text)
    node = place.add("generate", asking, inputs, part="structured" if place.wants("response") else "")
    give_objects(place, f"{node}.json", one=not has_schema, wrapped=False)
    if has_schema and place.everything is not None:
        place.gives("structured_response", place.everything)


def _with_tools(place: Place, tools: list[Component]) -> None:
    model = _asking(place)
    params, inputs = asked(place, model), {"prompt": prompt(place)}
    around: dict[str, str] = {}
    system(place, "system_prompt", params, around)
    inputs |= _messages(place, around.get("system", ""))
    params.pop("caller_sampling", None)
    params["tools"] = _declared(place, tools)
    rounds = place.component.number("max_iterations")
    params["max_rounds"] = min(max(int(rounds or 15), 1), ROUNDS_MAX)
    node = place.add("agent", params, inputs)
    _tuned_agent(place, node, "", has_system="system" not in around)
    if place.has("max_iterations"):
        place.tunes("max_iterations", f"{node}.max_rounds")
    text = Carried(port=f"{node}.text", type=PortType.TEXT)
    if place.wants("structured_response"):
        again = {"model": place.options.model, "caller_sampling": False, "system": place.written("format_instructions")}
        _structured(place, again, {"prompt": text.port})
    place.gives("response", text)
    place.everything = text


def _messages(place: Place, instructions: str) -> dict[str, str]:
    """The turns before the prompt: the conversation, below the instructions where those are connected."""
    turns = _turns(place)
    port = ""
    if turns:
        history = place.add("history", {"operation": "read", "messages_max": turns}, part="history")
        place.tunes("n_messages", f"{history}.messages_max")
        port = f"{history}.messages"
    if not instructions:
        return {"messages": port} if port else {}
    turn = '{"role": "system", "content": instructions}'
    params = {"operation": "expression", "expression": f"[{turn}] + turns" if port else f"[{turn}]", "type": "json"}
    fed = {"instructions": instructions, **({"turns": port} if port else {})}
    return {"messages": f"{place.add('transform', params, fed, part='instructions')}.result"}


def _declared(place: Place, tools: list[Component]) -> list[dict[str, Any]]:
    declared: list[dict[str, Any]] = []
    for number, tool in enumerate(tools, start=1):
        made = TOOLS.get(tool.kind)
        if made is not None:
            name, description, node = made(place, tool)
            taken = {each["name"] for each in declared}
            declared.append({
                "name": name if name not in taken else f"{name}_{number}", "description": description, "node": node,
            })  # fmt: skip
    return declared


Made = tuple[str, str, dict[str, Any]]


def _calculator(place: Place, tool: Component) -> Made:  # noqa: ARG001  # One of several.
    return (
        "calculate",
        "Computes an arithmetic expression of numbers, + - * / ** and parentheses, such as 4*4*(33/22)+12-20.",
        {"type": "calculator", "params": {}},
    )


def _sql(place: Place, tool: Component) -> Made:
    place.note(f"{tool.id} reads the gateway's SQL connection {place.options.connection!r}")
    return (
        "query_database",
        "Runs one SQL query that reads, and gives the rows.",
        {"type": "sql", "params": {"connection": place.options.connection}},
    )


def _history(place: Place, tool: Component) -> Made:
    return ("recall", "The earlier turns of this conversation.", {"type": "history", "params": reading(place, tool)})


def _retrieve(place: Place, tool: Component) -> Made:
    params = retrieving(place, tool)
    return ("search", "Finds the passages that are nearest to a query.", {"type": "retrieve", "params": params})


TOOLS: Final[dict[str, Callable[[Place, Component], Made]]] = {
    "Calculator": _calculator,
    "SQL": _sql,
    "Memory": _history,
    "MemoryBase": _history,
    "Knowledge": _retrieve,
    "VectorStore": _retrieve,
}
"""What an agent of ours may be given, by the component's kind."""
