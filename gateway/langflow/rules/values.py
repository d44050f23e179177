"""Components that pass data on in another shape: converters, selections, routers of values to names."""

from typing import Final

from gateway.langflow.carried import Carried
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text, computed
from gateway.langflow.selection import BROADCAST
from gateway.values import PortType

_INPUTS: Final = ("input_value", "input_data", "data", "data_inputs", "df", "message", "input_message", "data_list")
PATHS_MAX: Final = 32


def passed_on(place: Place) -> None:
    """What arrives, as it is."""
    value = _arriving(place)
    if value is not None:
        place.gives_all(value)


def type_converter(place: Place) -> None:
    """What arrives: a message is a text with us, whatever it is called; only data become text by a node."""
    value = _arriving(place)
    if value is None:
        return
    if place.wants("message_output"):
        place.gives("message_output", Carried(port=as_text(place, value), type=PortType.TEXT))
    place.gives_all(value)


def current_date(place: Place) -> None:
    """What the time is when the flow runs, in UTC."""
    zone = place.written("timezone", "UTC")
    if zone != "UTC":
        place.note(f"tells the time in UTC, not in {zone[:40]}")
    name = place.draft.claim("", place.component.id)
    now = place.input(name, {"type": "text", "required": False, "variable": "CURRENT_TIME"}, part="time")
    node = place.add("prompt", {"template": "Current date and time in UTC: {now}"}, {"now": now})
    place.gives_all(Carried(port=f"{node}.text", type=PortType.TEXT))


def notify(place: Place) -> None:
    """What the components that listen are given."""
    passed_on(place)


def listen(place: Place) -> None:
    """What the component that notifies was given."""
    value = place.value(BROADCAST)
    if value is None:
        place.refuse("nobody notifies it", instead="a Notify component with the same context key")
        return
    place.gives_all(value)


def select_data(place: Place) -> None:
    """One item of a list."""
    value, index = _arriving(place), int(place.component.number("data_index") or 0)
    if value is None:
        return
    if value.type is PortType.LIST:
        node = place.add("transform", {"operation": "select", "index": index}, {"value": value.port})
        place.gives_all(Carried(port=f"{node}.result", type=PortType.TEXT, names=value.names))
    elif value.type is PortType.DOCUMENTS:
        port = computed(place, f"passages[{index}].text", PortType.TEXT, {"passages": value.port}, part="")
        place.gives_all(Carried(port=port, type=PortType.TEXT))
    else:
        node = place.add("transform", {"operation": "get", "path": [index]}, {"value": value.port})
        place.gives_all(Carried(port=f"{node}.result", type=PortType.JSON, shape="one"))


def extract_key(place: Place) -> None:
    """The value of a key of an object."""
    value = _json(place)
    if value is None:
        return
    key = place.written("key")
    node = place.add("transform", {"operation": "get", "path": [key[:256]]}, {"value": value.port})
    place.gives_all(Carried(port=f"{node}.result", type=PortType.JSON))


def parse_json_data(place: Place) -> None:
    """A part of JSON, by a query of plain steps: .items[0].name. Anything else of jq is refused."""
    value = _arriving(place)
    if value is None:
        return
    path = _steps(place.written("query"))
    if path is None:
        hint = "steps such as .items[0].name; or an expression of a transform node"
        place.refuse("a jq query that is more than a path", field="query", instead=hint)
        return
    port = value.port
    if value.type is not PortType.JSON:
        port = f"{place.add('transform', {'operation': 'parse_json'}, {'value': as_text(place, value)}, part='json')}.result"
    if path:
        port = f"{place.add('transform', {'operation': 'get', 'path': path}, {'value': port})}.result"
    place.gives_all(Carried(port=port, type=PortType.JSON))


def filter_data(place: Place) -> None:
    """An object with some of its keys."""
    value = _json(place)
    if value is None:
        return
    found = place.component.fields.get("filter_criteria")
    keys = found.value if found is not None and isinstance(found.value, list) else []
    quoted = [f'"{key}": value["{key}"]' for key in keys if isinstance(key, str) and key.isidentifier()]
    if not quoted or len(quoted) < len(keys):
        place.refuse("its keys cannot be used", field="filter_criteria", instead="names of letters, digits and underscores")
        return
    port = computed(place, f"{{{', '.join(quoted)}}}", PortType.JSON, {"value": value.port}, part="")
    place.gives_all(Carried(port=port, type=PortType.JSON, shape="one"))


def merge_data(place: Place) -> None:
    """Several lists, one after the other."""
    if place.written("operation", "Concatenate") not in {"Concatenate", "Append"}:
        hint = "Concatenate, Append; or an expression of a transform node"
        place.refuse(f"the operation {place.written('operation')!r}", field="operation", instead=hint)
        return
    values = place.values("data_inputs")
    if not values or any(value.type is not PortType.JSON for value in values):
        place.refuse("it merges what is not JSON", field="data_inputs", instead="an expression of a transform node")
        return
    names = {f"value{number}": value.port for number, value in enumerate(values, start=1)}
    rows = [name if value.shape == "rows" else f"[{name}]" for name, value in zip(names, values, strict=True)]
    place.gives_all(
        Carried(port=computed(place, " + ".join(rows), PortType.JSON, names, part=""), type=PortType.JSON, shape="rows")
    )


def json_cleaner(place: Place) -> None:
    """JSON in a text, if it is JSON: broken JSON is not mended here."""
    value = _arriving(place, "json_str")
    if value is None:
        return
    place.note("JSON that is broken fails the run: it is not mended")
    node = place.add("transform", {"operation": "parse_json"}, {"value": as_text(place, value)}, part="json")
    text = place.add("transform", {"operation": "to_text"}, {"value": f"{node}.result"})
    place.gives_all(Carried(port=f"{text}.result", type=PortType.TEXT))


def _arriving(place: Place, *names: str) -> Carried | None:
    value = next((found for found in map(place.value, (*names, *_INPUTS)) if found is not None), None)
    if value is None:
        place.refuse("nothing is connected to it", instead="connect what it is to work on")
    return value


def _json(place: Place) -> Carried | None:
    value = _arriving(place)
    if value is not None and value.type is not PortType.JSON:
        place.refuse("it works on an object, and what arrives is text or passages", instead="a parser, for passages")
        return None
    return value


def _steps(query: str) -> list[str | int] | None:
    """The steps of a plain path, None where it is something else."""
    steps: list[str | int] = []
    for part in query.strip().strip(".").replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]") and part[1:-1].isdecimal() and len(part) <= 8:
            steps.append(int(part[1:-1]))
        elif part.replace("_", "").replace("-", "").isalnum() and part.isascii():
            steps.append(part)
        elif part:
            return None
    return steps if len(steps) <= PATHS_MAX else None
