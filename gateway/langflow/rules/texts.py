"""Components that make texts of data: parsers, and those that put texts together or take them apart."""

from gateway.langflow.carried import Carried
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text, filled
from gateway.langflow.rules.models import prompt
from gateway.values import PortType

CASES = {"uppercase": "upper", "lowercase": "lower"}


def parser(place: Place) -> None:
    """Data through a template, or as it reads as text."""
    _parsed(place, "input_data", "pattern", stringify=place.written("mode") == "Stringify")


def parse_data(place: Place) -> None:
    """The older parser of Data."""
    _parsed(place, "data", "template", stringify=False)


def parse_dataframe(place: Place) -> None:
    """The older parser of tables."""
    _parsed(place, "df", "template", stringify=False)


def _parsed(place: Place, data: str, pattern: str, *, stringify: bool) -> None:
    values = place.values(data)
    separator = place.written("sep", "\n")
    if not values:
        place.refuse("nothing is connected to it", field=data, instead="connect the data that it is to make text of")
        return
    if stringify:
        ports = [as_text(place, value) for value in values]
    else:
        ports = [filled(place, value, place.written(pattern, "{text}"), separator, field=pattern) for value in values]
    text = joined(place, ports, separator)
    place.gives_all(Carried(port=text, type=PortType.TEXT))
    if place.wants("data_list"):
        place.gives("data_list", Carried(port=text, type=PortType.TEXT))


def joined(place: Place, ports: list[str], separator: str, *, part: str = "joined") -> str:
    """A port that gives the texts of these, one after the other."""
    if len(ports) == 1:
        return ports[0]
    names = [f"text{number}" for number in range(1, len(ports) + 1)]
    between = separator.replace("{", "{{").replace("}", "}}")
    params = {"template": between.join(f"{{{name}}}" for name in names)}
    return f"{place.add('prompt', params, dict(zip(names, ports, strict=True)), part=part)}.text"


def combine_text(place: Place) -> None:
    """Two texts with a delimiter between them."""
    ports = [prompt(place, "text1"), prompt(place, "text2")]
    place.gives_all(Carried(port=joined(place, ports, place.written("delimiter"), part=""), type=PortType.TEXT))


def create_list(place: Place) -> None:
    """Texts as a list."""
    found = place.component.fields.get("texts")
    texts = found.value if found is not None and isinstance(found.value, list) else [place.written("texts")]
    port = place.constant("texts", "\n".join(text for text in texts if isinstance(text, str)))
    place.gives_all(_split(place, port, "\n"))


def split_text(place: Place) -> None:
    """The parts of a text. Ours are those between separators; they are not put together again up to a size."""
    names = ("data_inputs", "data_input", "data", "input_data")
    value = next((found for found in map(place.value, names) if found is not None), None)
    if value is None:
        place.refuse("nothing is connected to it", field="data_inputs", instead="connect the text that it is to split")
        return
    if value.type is PortType.LIST:
        place.gives_all(value)
        return
    place.note("the parts are what stands between separators; chunk_size and chunk_overlap are not used")
    place.gives_all(_split(place, as_text(place, value), place.written("separator", "\n") or "\n"))


def _split(place: Place, port: str, separator: str) -> Carried:
    node = place.add("transform", {"operation": "split", "separator": separator[:256]}, {"value": port})
    return Carried(port=f"{node}.result", type=PortType.LIST)


def regex_extractor(place: Place) -> None:
    """What of a text a pattern matches. The engine is RE2, which knows no look-around and no back-references."""
    params = {"operation": "regex_extract", "pattern": place.written("pattern"), "matches": "all"}
    node = place.add("transform", params, {"value": prompt(place, "input_text")})
    place.tunes("pattern", f"{node}.pattern")
    matches = Carried(port=f"{node}.result", type=PortType.LIST, names=frozenset({"match", "text"}))
    place.gives("data", matches)
    if place.wants("text"):
        place.gives("text", Carried(port=as_text(place, matches), type=PortType.TEXT))


def text_operations(place: Place) -> None:
    """One operation on a text, of those that ours have too."""
    operation, port = _operation(place), prompt(place, "text_input")
    if operation == "Case Conversion" and place.written("case_type", "lowercase") in CASES:
        params = {"operation": CASES[place.written("case_type", "lowercase")]}
    elif operation == "Text Replace" and not place.component.flag("use_regex") and place.written("search_pattern"):
        params = {"operation": "replace", "old": place.written("search_pattern"), "new": place.written("replacement_text")}
    elif operation == "Text Strip" and not place.written("strip_characters") and place.written("strip_mode", "both") == "both":
        params = {"operation": "strip"}
    elif operation == "Text Join":
        port = joined(place, [port, prompt(place, "text_input_2")], "\n", part="")
        place.gives_all(Carried(port=port, type=PortType.TEXT))
        return
    else:
        hint = "ours: Case Conversion (upper, lower), Text Replace, Text Strip, Text Join; or a transform node"
        place.refuse(f"the operation {operation or 'none'!r}, as it is set here", field="operation", instead=hint)
        return
    place.gives_all(Carried(port=f"{place.add('transform', params, {'value': port})}.result", type=PortType.TEXT))


def _operation(place: Place) -> str:
    found = place.component.fields.get("operation")
    value = found.value if found is not None else ""
    first = value[0] if isinstance(value, list) and value else value
    name = first.get("name") if isinstance(first, dict) else first
    return name if isinstance(name, str) else ""
