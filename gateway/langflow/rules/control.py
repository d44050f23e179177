"""Control: a router by a condition, a model for each row, another flow."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.langflow.carried import Carried
from gateway.langflow.draft import Draft
from gateway.langflow.naming import slug
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text, computed, quoted
from gateway.langflow.rules.models import asked, prompt, system
from gateway.values import PortType

TRUE, FALSE, OTHERWISE = "true_result", "false_result", "default_result"
ROUTES_MAX: Final = 30
_NUMBER: Final = r"r'^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$'"
_TEXTUAL: Final = {
    "equals": "text == match",
    "not equals": "text != match",
    "contains": "text.contains(match)",
    "starts with": "text.startsWith(match)",
    "ends with": "text.endsWith(match)",
}
_NUMERIC: Final = {"less than": "<", "less than or equal": "<=", "greater than": ">", "greater than or equal": ">="}
ROWS_MAX: Final = 1000


def conditional_router(place: Place) -> None:
    """A text sent one way or another by a condition on it."""
    text = prompt(place, "input_text")
    condition = _condition(place, place.written("operator", "equals"), text)
    if condition is None:
        return
    expression, compared = condition
    for output, fields in ((TRUE, ("true_case_message", "message")), (FALSE, ("false_case_message", "message"))):
        if place.wants(output):
            field = next((name for name in fields if place.connected(name) or place.written(name)), "")
            sent = prompt(place, field) if field else text
            when = expression if output == TRUE else f"!({expression})"
            place.gives(output, Carried(port=_branch(place, output, sent, when, compared), type=PortType.TEXT))


def smart_router(place: Place) -> None:
    """A text sent the way of the category that a model finds it to be of."""
    routes = _routes(place)
    names = [str(route["route_category"]) for route in routes]
    text = prompt(place, "input_text")
    category = _category(place, routes, names, text)
    for number, route in enumerate(routes, start=1):
        output, own = f"category_{number}_result", route.get("output_value")
        if place.wants(output):
            sent = place.constant(output, own) if isinstance(own, str) and own.strip() else text
            if place.connected("message") or place.written("message"):
                sent = prompt(place, "message")
            port = _branch(place, output, sent, f"category == {quoted(names[number - 1])}", {"category": category})
            place.gives(output, Carried(port=port, type=PortType.TEXT))
    if place.wants(OTHERWISE):
        none = f"!(category in [{', '.join(map(quoted, names))}])"
        port = _branch(place, OTHERWISE, text, none, {"category": category})
        place.gives(OTHERWISE, Carried(port=port, type=PortType.TEXT))


def _routes(place: Place) -> list[dict[str, Any]]:
    found = place.component.fields.get("routes")
    rows = found.value if found is not None and isinstance(found.value, list) else []
    routes = [
        row for row in rows if isinstance(row, dict) and isinstance(row.get("route_category"), str) and row["route_category"]
    ]
    if not 1 <= len(routes) <= ROUTES_MAX or len(routes) < len(rows):
        hint = f"1 to {ROUTES_MAX} rows, each with a name"
        place.refuse(f"its table has {len(rows)} routes, {len(routes)} of them with a name", field="routes", instead=hint)
    return routes[:ROUTES_MAX]


def _category(place: Place, routes: list[dict[str, Any]], names: list[str], text: str) -> str:
    """A port that gives the name of the category that a model finds, or NONE."""
    listed = "\n".join(f"- {name}: {route.get('route_description') or name}" for name, route in zip(names, routes, strict=True))
    asking = f"Which of these categories is the text of? If it is of none, say NONE.\n\n{listed}"
    more = place.written("custom_prompt")
    instructions = "\n\n".join(part for part in (asking, more) if part)
    params = asked(place, place.model("llm", "model")) | {"system": instructions, "caller_sampling": False}
    params["structured_output"] = {"choice": [*dict.fromkeys(names), "NONE"]}
    node = place.add("generate", params, {"prompt": text}, part="category")
    place.note(f"our model {place.options.model!r} says which category a text is of")
    return f"{node}.text"


def _branch(place: Place, output: str, sent: str, when: str, compared: Mapping[str, str]) -> str:
    params = {"type": "text", "cases": [{"name": output, "when": when}], "otherwise": "otherwise"}
    node = place.add("switch", params, {"value": sent, **compared}, part=output)
    return f"{node}.{output}"


def _condition(place: Place, operator: str, text: str) -> tuple[str, Mapping[str, str]] | None:
    """The expression of a branch, and what its names are fed."""
    if operator == "regex":
        return _pattern(place, text)
    if operator not in _TEXTUAL and operator not in _NUMERIC:
        hint = f"known: {', '.join([*_TEXTUAL, 'regex', *_NUMERIC])}"
        place.refuse(f"the operator {operator[:40]!r}", field="operator", instead=hint)
        return None
    compared = {"text": text, "match": prompt(place, "match_text")}
    if operator in _NUMERIC:
        numbers = f"text.matches({_NUMBER}) && match.matches({_NUMBER})"
        return f"{numbers} && double(text.trim()) {_NUMERIC[operator]} double(match.trim())", compared
    if not place.component.flag("case_sensitive", default=True):
        for name, port in compared.items():
            compared[name] = f"{place.add('transform', {'operation': 'lower'}, {'value': port}, part=name)}.result"
    return _TEXTUAL[operator], compared


def _pattern(place: Place, text: str) -> tuple[str, Mapping[str, str]] | None:
    pattern = place.written("match_text")
    if place.connected("match_text"):
        place.refuse("a pattern that another component gives", field="match_text", instead="write the pattern")
        return None
    node = place.add("transform", {"operation": "regex_test", "pattern": f"^(?:{pattern})"}, {"value": text}, part="test")
    return "matched", {"matched": f"{node}.result"}


def batch_run(place: Place) -> None:
    """A model's answer for each row."""
    rows, column = place.value("df"), place.written("column_name")
    if rows is None:
        place.refuse("nothing is connected to it", field="df", instead="connect the rows that it is to run over")
        return
    items = _texts_of(place, rows, column)
    params = asked(place, place.model("model"))
    inputs: dict[str, str] = {}
    system(place, "system_message", params, inputs)
    params["caller_sampling"] = False
    body = Draft()
    item = body.add("item", "input", {"type": "text"})
    fed = {"prompt": f"{item}.value"}
    if "system" in inputs:
        fed["system"] = f"{body.add('system', 'input', {'type': 'text'})}.value"
    answer = body.add("answer", "generate", params, fed)
    body.add("text", "output", {"name": "text"}, {"value": f"{answer}.text"})
    node = place.add("map", {"item": item, "items_max": ROWS_MAX, "body": body.document()}, {"items": items, **inputs})
    answers = frozenset({"model_response", "text", place.written("output_column_name", "model_response")})
    place.gives_all(Carried(port=f"{node}.text", type=PortType.LIST, names=answers))


def _texts_of(place: Place, rows: Carried, column: str) -> str:
    """A port that gives the texts that a model is asked, a list."""
    if rows.type is PortType.LIST:
        return rows.port
    if rows.type is PortType.DOCUMENTS:
        return computed(place, "passages.map(p, p.text)", PortType.LIST, {"passages": rows.port}, part="texts")
    if rows.type is PortType.TEXT:
        return computed(place, "[text]", PortType.LIST, {"text": rows.port}, part="texts")
    part = f'string(row["{column}"])' if column.isidentifier() else "string(row)"
    return computed(place, f"rows.map(row, {part})", PortType.LIST, {"rows": rows.port}, part="texts")


def run_flow(place: Place) -> None:
    """Another flow, by the name that ours has: its own in small letters."""
    name = slug(place.written("flow_name_selected") or place.written("flow_name"))
    if not name:
        place.refuse("it names no flow", field="flow_name_selected", instead="choose the flow that it is to run")
        return
    field = next((each for each in place.arriving if each not in {"flow_name_selected", "flow_name", "session_id"}), "")
    params: dict[str, Any] = {"flow": name, "outputs": {"message": "text"}}
    inputs: dict[str, str] = {}
    if field:
        value = place.value(field)
        inputs = {"input_value": as_text(place, value)} if value is not None else {}
        params["inputs"] = {"input_value": "text"}
    node = place.add("flow", params, inputs)
    place.note(f"runs our flow {name!r}, which must be imported too, with its input_value and its message")
    place.gives_all(Carried(port=f"{node}.message", type=PortType.TEXT))
