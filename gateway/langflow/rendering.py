"""Values as texts, as LangFlow's components make them: a Data's text, a table's rows, a template filled for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.langflow.carried import Carried
from gateway.langflow.place import NOWHERE, Place
from gateway.langflow.templates import Written, format_string, plain_names
from gateway.values import PortType

PASSAGE: Final = {
    "text": "text", "content": "text", "page_content": "text", "data": "text", "score": "score", "_score": "score",
    "id": "chunk_id", "_id": "chunk_id", "chunk_id": "chunk_id", "document_id": "document_id",
}  # fmt: skip
"""What the keys of LangFlow's results are called in our passages. Any other is one of their metadata."""

WHOLE: Final = "data"
OLDER: Final = "template"
"""In the template of the older parsers, {data} is the whole of an object."""


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
    template = _template(place, value, pattern, field)
    if template is None:
        return value.port
    if not pattern:
        return place.constant(field, "")
    filling = _Filling(place=place, template=template, separator=separator, field=field)
    if value.type is PortType.DOCUMENTS:
        return filling.passages(value.port)
    if value.type is PortType.JSON:
        return filling.objects(value)
    return filling.texts(value.port) if value.type is PortType.LIST else filling.text(as_text(place, value), value.names)


def _template(place: Place, value: Carried, pattern: str, field: str) -> Written | None:
    if value is NOWHERE:
        return None
    try:
        template = format_string(pattern)
    except ValueError as error:
        hint = "write {name} for a value, {{ and }} for braces"
        place.refuse(f"the template cannot be used: {error}", field=field, instead=hint)
        return None
    unknown = [name for name in template.variables if name not in value.names | {"data"}]
    if unknown and value.type not in {PortType.DOCUMENTS, PortType.JSON}:
        hint = f"known: {', '.join(sorted(value.names))}"
        place.refuse(f"the template asks for {{{unknown[0]}}}, but what arrives is a text", field=field, instead=hint)
        return None
    return template


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filling:
    """A template that is to be filled, and where."""

    place: Place
    template: Written
    separator: str
    field: str

    def text(self, port: str, names: frozenset[str]) -> str:
        if self.template.ours(str) in {f"{{{name}}}" for name in names}:
            return port
        inputs = {"text": port} if self.template.variables else {}
        node = self.place.add("prompt", {"template": self.template.ours(lambda _: "text")}, inputs)
        self.place.tunes(self.field, f"{node}.template")
        return f"{node}.text"

    def texts(self, port: str) -> str:
        """Each text of a list."""
        if self.template.ours(lambda _: "x") == "{x}":
            params = {"operation": "join", "separator": self.separator}
            return f"{self.place.add('transform', params, {'value': port})}.result"
        rows = computed(self.place, 'texts.map(t, {"text": t})', PortType.JSON, {"texts": port}, part="rows")
        return self._formatted(rows, dict.fromkeys(self.template.variables, "text"))

    def passages(self, port: str) -> str:
        if all(name in PASSAGE for name in self.template.variables):
            shown = self.template.ours(lambda name: PASSAGE[name])
            params = {"operation": "format_documents", "template": shown, "separator": self.separator}
            node = self.place.add("transform", params, {"value": port})
            self.place.tunes("sep", f"{node}.separator")
            return f"{node}.result"
        names = plain_names(self.template.variables)
        parts = [f"{quoted(plain)}: {_of_passage(name)}" for name, plain in names.items()]
        expression = f"passages.map(p, {{{', '.join(parts)}}})"
        return self._formatted(computed(self.place, expression, PortType.JSON, {"passages": port}, part="rows"), names)

    def objects(self, value: Carried) -> str:
        """An object, or each object of a list."""
        names, port = plain_names(self.template.variables), value.port
        whole = WHOLE if self.field == OLDER else ""
        if whole in names or any(name != plain for name, plain in names.items()):
            item = "value" if value.shape == "one" else "row"
            parts = [f"{quoted(plain)}: {item if name == whole else _of_object(item, name)}" for name, plain in names.items()]
            shaped = f"{{{', '.join(parts)}}}"
            expression = shaped if value.shape == "one" else f"value.map(row, {shaped})"
            port = computed(self.place, expression, PortType.JSON, {"value": port}, part="rows")
        return self._formatted(port, names)

    def _formatted(self, port: str, names: Mapping[str, str]) -> str:
        shown = self.template.ours(lambda name: names[name])
        params = {"operation": "format", "template": shown, "separator": self.separator, "default": ""}
        node = self.place.add("transform", params, {"value": port})
        self.place.tunes(self.field, f"{node}.template")
        self.place.tunes("sep", f"{node}.separator")
        return f"{node}.result"


def _of_object(item: str, key: str) -> str:
    return f'{quoted(key)} in {item} ? {item}[{quoted(key)}] : ""'


def _of_passage(key: str) -> str:
    return f"p.{PASSAGE[key]}" if key in PASSAGE else _of_object("p.metadata", key)


def quoted(text: str) -> str:
    """A text as an expression has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'
