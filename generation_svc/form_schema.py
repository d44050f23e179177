"""JSON Schemas that an answer may be held to: whether a text is one, whether engines hold to all of it, and what it costs.

Engines make a grammar of a schema. What they would leave out without a word (`not`, `if`, siblings of `$ref`, ...) is refused
by name, so that an answer is valid by the whole schema. Keywords are those of the drafts 7 to 2020-12; others are notes, as the
standard has it. Written out rather than asked of the jsonschema library, which takes half a millisecond for each subschema.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from generation_svc import form_regex
from generation_svc.form_cost import UnfitForm
from penstock.errors import Violation

BYTES_MAX: Final = 64 * 2**10
DEPTH_MAX: Final = 64
SUBSCHEMAS_MAX: Final = 500
VALUES_MAX: Final = 1000
COUNT_MAX: Final = 100_000
CLASS_STATES_MAX: Final = 1000
_UNFOLDED_MAX: Final = 128
"""Compilers unfold a bounded string up to here and count beyond. A state of it takes 10 to 30 ms, a list next to nothing."""
_FAULTS_MAX: Final = 10
_INTEGER_MAX: Final = 2**53

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_FORMATS: Final = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer", "relative-json-pointer", "time",
    "uri", "uri-reference", "uri-template", "uuid",
})  # fmt: skip
_UNHELD: Final = frozenset({
    "$dynamicRef", "$recursiveRef", "additionalItems", "contains", "dependencies", "dependentRequired", "dependentSchemas",
    "else", "if", "maxContains", "minContains", "multipleOf", "not", "then", "unevaluatedItems", "unevaluatedProperties",
    "uniqueItems",
})  # fmt: skip
_SCHEMA: Final = frozenset({"additionalProperties", "items", "propertyNames"})
_SCHEMAS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset({"$defs", "definitions", "patternProperties", "properties"})
_LIMITS: Final = (
    ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"), ("minimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"), ("minimum", "exclusiveMaximum"), ("exclusiveMinimum", "maximum"),
)  # fmt: skip
_NOTES: Final = frozenset({
    "$anchor", "$comment", "$defs", "$id", "$schema", "$vocabulary", "default", "definitions", "deprecated", "description",
    "examples", "readOnly", "title", "writeOnly",
})  # fmt: skip
_STRINGS: Final = frozenset({"$anchor", "$comment", "$id", "$ref", "$schema", "description", "format", "pattern", "title"})
_COUNTS: Final = frozenset({"maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"})
_NUMBERS: Final = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"})
_BOUNDS: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({"format", "maxLength", "minLength", "pattern"}),
    "array": frozenset({"items", "maxItems", "minItems", "prefixItems"}),
    "object": frozenset({
        "additionalProperties", "maxProperties", "minProperties", "patternProperties", "properties", "propertyNames",
        "required",
    }),
    "number": _NUMBERS,
}  # fmt: skip
_CHOSEN: Final = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
_ASSERTED: Final = frozenset().union(*_BOUNDS.values(), _CHOSEN, {"type"})


def faults(text: str, field: str) -> Iterator[Violation]:
    """What is wrong with a schema; at most the first ten."""
    if not 1 <= (size := len(text.encode(errors="replace"))) <= BYTES_MAX:
        yield Violation(field=field, message=f"has {size} bytes, must have 1 to {BYTES_MAX}")
        return
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        yield Violation(field=field, message=f"is not JSON: {error}")
        return
    if not isinstance(schema, dict):
        message = "is not an object"
        yield Violation(
            field=field,
            message=message,
            suggestion='an answer of any form is had without a schema, an object by {"type": "object"}',
        )
        return
    if _depth(schema) > DEPTH_MAX:
        message = f"has objects and lists more than {DEPTH_MAX} deep in one another"
        yield Violation(field=field, message=message, suggestion="use $defs and $ref")
        return
    for number, fault in enumerate(_Walk(schema).faults()):
        if number == _FAULTS_MAX:
            return
        yield Violation(field=field, message=fault.message, suggestion=fault.suggestion)


class _Walk:
    """Goes through a schema once, from the top down, and adds up what it costs."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._subschemas = 0
        self._values = 0
        self._class_states = 0

    def faults(self) -> Iterator[UnfitForm]:
        waiting: list[tuple[str, Any]] = [("#", self._schema)]
        while waiting:
            place, schema = waiting.pop()
            self._subschemas += 1
            if self._subschemas > SUBSCHEMAS_MAX:
                yield UnfitForm(f"has more than {SUBSCHEMAS_MAX} schemas in it", "ask for less at once")
                return
            if isinstance(schema, bool):
                if not schema and not place.endswith(("/items", "/additionalProperties")):
                    yield UnfitForm(f"{place} is false, which no answer can meet")
                continue
            if not isinstance(schema, dict):
                yield UnfitForm(f"{place} is no schema", "it must be an object, true or false")
                continue
            for message, suggestion in self._schema_faults(schema):
                yield UnfitForm(f"{place} {message}", suggestion)
            waiting += [(f"{place}/{part}", below) for part, below in _below(schema)]
        if self._values > VALUES_MAX:
            yield UnfitForm(f"has {self._values} values in enum, at most {VALUES_MAX} are taken")
        if self._class_states > CLASS_STATES_MAX:
            message = f"unfolds into {self._class_states} states, at most {CLASS_STATES_MAX} are taken"
            yield UnfitForm(message, "leave out some of its bounds of lengths and counts, or make them smaller")

    def _schema_faults(self, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
        wrong = [(keyword, shape) for keyword, value in schema.items() if (shape := _misshapen(keyword, value))]
        yield from ((f"has the keyword {keyword}, which {shape}", "see json-schema.org") for keyword, shape in wrong)
        unheld = sorted(_UNHELD & schema.keys())
        yield from (
            (f"has the keyword {keyword}, which engines do not hold an answer to", "leave it out") for keyword in unheld
        )
        if wrong:
            return
        yield from _range_faults(schema)
        yield from _combination_faults(schema)
        if "$ref" in schema:
            yield from self._reference_faults(schema["$ref"])
        yield from self._costs(schema)

    def _reference_faults(self, reference: str) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        while True:
            if reference in seen:
                yield f"has a $ref that leads back to itself: {reference}", "something must stand between"
                return
            seen.add(reference)
            target = self._resolved(reference)
            if not isinstance(target, dict | bool):
                yield (
                    f"has a $ref to {reference}, which is not there",
                    "references are # or #/$defs/name, into the schema itself",
                )
                return
            if isinstance(target, bool) or "$ref" not in target or not isinstance(target["$ref"], str):
                return
            reference = target["$ref"]

    def _resolved(self, reference: str) -> Any:
        if reference == "#":
            return self._schema
        if (
            not reference.startswith("#/")
            or "~" in reference
            or "%" in reference
            or "//" in reference
            or reference.endswith("/")
        ):
            return None
        found: Any = self._schema
        for part in reference[2:].split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def _costs(self, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
        self._values += len(schema.get("enum", ()))
        for keyword in ("maxLength", "maxItems", "maxProperties"):
            largest = max(schema.get(keyword, 0), schema.get(keyword.replace("max", "min"), 0))
            if largest > COUNT_MAX:
                yield f"asks for up to {largest} by {keyword}, at most {COUNT_MAX} are taken", "leave the bound out"
            if keyword == "maxLength":
                self._class_states += min(largest, _UNFOLDED_MAX)
        for pattern in (*([schema["pattern"]] if "pattern" in schema else ()), *schema.get("patternProperties", ())):
            yield from self._pattern_faults(pattern)

    def _pattern_faults(self, pattern: str) -> Iterator[tuple[str, str]]:
        try:
            cost = form_regex.cost(pattern)
        except UnfitForm as fault:
            yield f"has a pattern that {fault.message}", fault.suggestion
            return
        self._class_states += cost.class_states
        if cost.breaks_json:
            message = "has a pattern that takes a quote, a backslash or a control character, which break JSON"
            yield message, 'write [^"\\\\\\x00-\\x1f] instead of . and of negated classes'


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [below for each in level for below in (each.values() if isinstance(each, dict) else each)]
    return depth


def _below(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword, value in schema.items():
        if keyword in _SCHEMA:
            yield keyword, value
        elif keyword in _SCHEMAS and isinstance(value, list):
            yield from ((f"{keyword}/{index}", below) for index, below in enumerate(value))
        elif keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            yield from ((f"{keyword}/{name[:64]}", below) for name, below in value.items())


def _range_faults(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for low, high in _LIMITS:
        if low in schema and high in schema and schema[low] > schema[high]:
            yield f"has {low} {schema[low]} above {high} {schema[high]}", ""
    if schema.get("type") == "integer":
        numbers = {keyword: schema[keyword] for keyword in sorted(_NUMBERS & schema.keys())}
        if any(number != int(number) for number in numbers.values()):
            yield "bounds an integer by a fraction", "give a whole number"
        elif _least(numbers) > _greatest(numbers):
            yield "has no integer between its bounds", ""
    fixed = schema.get("items") is False
    least, prefix = schema.get("minItems", 0), len(schema.get("prefixItems", ()))
    if schema.get("maxItems", prefix) < prefix or (fixed and least > prefix):
        yield "has bounds of items that its prefixItems can't meet", ""
    if schema.get("maxProperties", VALUES_MAX) < len(schema.get("required", ())):
        yield "requires more properties than maxProperties allows", ""
    if schema.get("additionalProperties", False) is False and schema.get("minProperties", 0) > len(
        schema.get("properties", ())
    ):
        yield "asks by minProperties for more properties than there are", ""


def _least(numbers: Mapping[str, float]) -> float:
    return max(numbers.get("minimum", -_INTEGER_MAX), numbers.get("exclusiveMinimum", -_INTEGER_MAX - 1) + 1)


def _greatest(numbers: Mapping[str, float]) -> float:
    return min(numbers.get("maximum", _INTEGER_MAX), numbers.get("exclusiveMaximum", _INTEGER_MAX + 1) - 1)


def _combination_faults(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keywords of which engines would hold to one and leave out the other."""
    asserted = schema.keys() - _NOTES
    for keyword in (each for each in _CHOSEN if each in schema):
        beside = sorted(asserted & _ASSERTED - {keyword} - ({"type"} if keyword in {"const", "enum"} else set()))
        if beside:
            yield (
                f"has {', '.join(beside)} beside {keyword}, of which engines hold an answer to one",
                "write them in one schema",
            )
            return
    if len(schema.get("allOf", ())) > 1:
        yield "has an allOf of several schemas, which engines do not hold an answer to", "write them as one"
    if "format" in schema and schema["format"] not in _FORMATS:
        yield f"has the format {schema['format']!r}, which engines do not know", f"one of {', '.join(sorted(_FORMATS))}"
    if len(asserted & {"pattern", "format"}) + bool(asserted & {"minLength", "maxLength"}) > 1:
        yield "has two of pattern, format and bounds of the length", "a pattern can bound the length: [a-z]{2,8}"
    if "patternProperties" in schema and (asserted & {"properties", "propertyNames"} or len(schema["patternProperties"]) > 1):
        yield "has patternProperties beside properties, propertyNames or one another", "leave one out"
    if "propertyNames" in schema and asserted & {"properties", "required"}:
        yield "has propertyNames beside properties", "leave one out"
    yield from _type_faults(schema, asserted)


def _type_faults(schema: dict[str, Any], asserted: set[str]) -> Iterator[tuple[str, str]]:
    """Bounds of another type than the answer's have no effect, and without a type engines take a schema for any value."""
    types = schema.get("type", [])
    types = {types} if isinstance(types, str) else set(types)
    types |= {"number"} if "integer" in types else set()
    for type_, keywords in _BOUNDS.items():
        if (bounds := sorted(asserted & keywords)) and type_ not in types:
            yield f"has {', '.join(bounds)} without the type {type_}", f'add "type": "{type_}"'
    names = schema.get("properties", {})
    if missing := [name for name in schema.get("required", ()) if name not in names]:
        yield f"requires {missing[0][:64]!r}, which is no property of it", "add it to properties"


def _misshapen(keyword: str, value: Any) -> str:
    """What a keyword's value must be and is not; empty when it is right or the keyword is a note of one's own."""
    for keywords, right, said in _SHAPES:
        if keyword in keywords and not right(value):
            return said
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _INTEGER_MAX


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_type(value: Any) -> bool:
    return value in _TYPES if isinstance(value, str) else _is_names(value) and bool(value) and _TYPES.issuperset(value)


_SHAPES: Final[tuple[tuple[frozenset[str], Callable[[Any], bool], str], ...]] = (
    (_STRINGS, lambda value: isinstance(value, str), "must be a string"),
    (_COUNTS, _is_count, "must be a whole number, at least 0"),
    (_NUMBERS, _is_number, f"must be a number between -{_INTEGER_MAX} and {_INTEGER_MAX}"),
    (_SCHEMAS, lambda value: isinstance(value, list) and bool(value), "must be a list of schemas, at least one"),
    (_NAMED_SCHEMAS, lambda value: isinstance(value, dict), "must be an object of schemas"),
    (frozenset({"required"}), _is_names, "must be a list of different strings"),
    (frozenset({"enum"}), lambda value: isinstance(value, list) and bool(value), "must be a list of values, at least one"),
    (frozenset({"type"}), _is_type, f"must be one of {', '.join(sorted(_TYPES))}, or a list of them"),
)
