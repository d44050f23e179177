"""Values as texts, as LangFlow's components make them: a Data's text, a table's rows, a template filled for each of them."""

from collections.abc import Mapping
from typing import Final

from gateway.langflow.carried import Carried
from gateway.langflow.place import Place
from gateway.langflow.templates import Written, format_string, plain_names
from gateway.values import PortType

PASSAGE: Final = {
    "text": "text", "content": "text", "page_content": "text", "data": "text",
    "score": "score", "_score": "score", "id": "chunk_id", "_id": "chunk_id", "chunk_id": "chunk_id", "document_id": "document_id",
}  # fmt: skip
"""What the keys of LangFlow's results are called in our passages. Any other is one of their metadata."""


def as_text(place: Place, value: Carried, *, separator: str = "\n") -> str:
    """A port that gives the value as text."""
    if value.type is PortType.TEXT:
        return value.port
    if value.type is PortType.DOCUMENTS:
        params = {"operation": "format_documents", "template": "{text}", "separator": separator}
    elif value.type is PortType.LIST:
        params = {"operation": "join", "separator": separator}
    else:
        params = {"operation": "to_text"}
    return f"{place.add('transform', params, {'value': value.port}, part='text')}.result"


def computed(place: Place, expression: str, kind: PortType, inputs: Mapping[str, str], *, part: str) -> str:
    """A port that gives what an expression says of these ports."""
    params = {"operation": "expression", "expression": expression, "type": kind.value}
    return f"{place.add('transform', params, inputs, part=part)}.result"


def filled(place: Place, value: Carried, pattern: str, separator: str, *, field: str) -> str:
    """A port that gives the pattern filled with the value, or with each of its rows. A pattern that cannot be is refused."""
    try:
        template = format_string(pattern)
    except ValueError as error:
        hint = "write {name} for a value, {{ and }} for braces"
        place.refuse(f"the template cannot be used: {error}", field=field, instead=hint)
        return value.port
    if not pattern:
        return place.constant(field, "")
    if value.type is PortType.DOCUMENTS:
        return _passages(place, value.port, template, separator, field)
    if value.type is PortType.JSON:
        return _objects(place, value, template, separator, field)
    unknown = [name for name in template.variables if name not in value.names | {"data"}]
    if unknown:
        hint = f"known: {', '.join(sorted(value.names))}"
        place.refuse(f"the template asks for {{{unknown[0]}}}, but what arrives is a text", field=field, instead=hint)
        return value.port
    if value.type is PortType.LIST:
        return _texts(place, value.port, template, separator, field)
    port = as_text(place, value)
    if pattern in {f"{{{name}}}" for name in value.names}:
        return port
    node = place.add("prompt", {"template": template.ours(lambda _: "text")}, {"text": port} if template.variables else {})
    place.tunes(field, f"{node}.template")
    return f"{node}.text"


def _passages(place: Place, port: str, template: Written, separator: str, field: str) -> str:
    if all(name in PASSAGE for name in template.variables):
        shown = template.ours(lambda name: PASSAGE[name])
        params = {"operation": "format_documents", "template": shown, "separator": separator}
        node = place.add("transform", params, {"value": port})
        place.tunes("sep", f"{node}.separator")
        return f"{node}.result"
    names = plain_names(template.variables)
    parts = [f"{_quoted(names[name])}: {_of_passage(name)}" for name in template.variables]
    rows = computed(place, f"passages.map(p, {{{', '.join(parts)}}})", PortType.JSON, {"passages": port}, part="rows")
    return _formatted(place, rows, template, names, separator, field)


def _of_passage(name: str) -> str:
    if name in PASSAGE:
        return f"p.{PASSAGE[name]}"
    return f'{_quoted(name)} in p.metadata ? p.metadata[{_quoted(name)}] : ""'


def _texts(place: Place, port: str, template: Written, separator: str, field: str) -> str:
    """Each text of a list through the template."""
    if template.ours(lambda _: "x") == "{x}":
        return f"{place.add('transform', {'operation': 'join', 'separator': separator}, {'value': port})}.result"
    rows = computed(place, 'texts.map(t, {"text": t})', PortType.JSON, {"texts": port}, part="rows")
    return _formatted(place, rows, template, dict.fromkeys(template.variables, "text"), separator, field)


def _objects(place: Place, value: Carried, template: Written, separator: str, field: str) -> str:
    """An object through the template, or each object of a list."""
    names, port = plain_names(template.variables), value.port
    if any(name != plain for name, plain in names.items()):
        item = "value" if value.shape == "one" else "row"
        parts = [f'{_quoted(plain)}: {_quoted(name)} in {item} ? {item}[{_quoted(name)}] : ""' for name, plain in names.items()]
        shaped = f"{{{', '.join(parts)}}}"
        expression = shaped if value.shape == "one" else f"value.map(row, {shaped})"
        port = computed(place, expression, PortType.JSON, {"value": port}, part="rows")
    return _formatted(place, port, template, names, separator, field)


def _formatted(place: Place, port: str, template: Written, names: Mapping[str, str], separator: str, field: str) -> str:
    shown = template.ours(lambda name: names[name])
    params = {"operation": "format", "template": shown, "separator": separator, "default": ""}
    node = place.add("transform", params, {"value": port})
    place.tunes(field, f"{node}.template")
    place.tunes("sep", f"{node}.separator")
    return f"{node}.result"


def _quoted(text: str) -> str:
    """A text as an expression has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'
