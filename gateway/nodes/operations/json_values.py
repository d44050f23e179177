"""Operations on JSON."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import orjson
from pydantic import Field, ValidationInfo, field_validator

from gateway.nodes.operations.base import LIST_ITEMS_MAX, VALUE, Operation, OrDefault
from gateway.nodes.template import SYNTAX_DESCRIPTION, Syntax, Template
from gateway.values import DEPTH_MAX, PortType, as_json, as_text, bounded_join, is_deeper
from penstock.errors import FailedPrecondition

JSON_CHARS_MAX: Final = 2**20


class ParseJson(OrDefault):
    """The JSON value that a text says."""

    operation: Literal["parse_json"]
    accepts = PortType.TEXT
    gives = PortType.JSON

    def apply(self, value: str) -> Any:
        if len(value) > JSON_CHARS_MAX:
            return self._otherwise(f"the text has {len(value)} characters; at most {JSON_CHARS_MAX} are read as JSON")
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return self._otherwise(f"the text is not JSON ({error})")
        return self._otherwise(f"the JSON is nested more than {DEPTH_MAX} deep") if is_deeper(parsed, DEPTH_MAX) else parsed


class Get(OrDefault):
    """A part of a JSON value."""

    operation: Literal["get"]
    path: list[str | int] = Field(
        min_length=1, max_length=32, description='The way to it: keys of objects and indexes of arrays, such as ["items", 0].'
    )
    accepts = PortType.JSON
    gives = PortType.JSON

    def apply(self, value: Any) -> Any:
        part = as_json(value)
        for step in self.path:
            try:
                part = _child(part, step)
            except LookupError:
                return self._otherwise(f"the value has nothing at {step!r}")
        return part


class ToText(Operation):
    """A JSON value as text: a text as it is, anything else as compact JSON."""

    operation: Literal["to_text"]
    accepts = PortType.JSON
    gives = PortType.TEXT

    def apply(self, value: Any) -> str:
        return as_text(value)


class Format(OrDefault):
    """A JSON object through a template, or each object of an array."""

    operation: Literal["format"]
    syntax: Syntax = Field(default="f-string", description=SYNTAX_DESCRIPTION)
    template: str = Field(
        min_length=1, max_length=65_536, description="The text. Its variables are keys of the object: {name}, {{ for a brace."
    )
    separator: str = Field(default="\n", max_length=4096, description="What to put between the texts of an array's objects.")
    default: str | None = Field(
        default=None, max_length=65_536, description="What to put for a key that is missing. Left out: the run fails."
    )
    accepts = PortType.JSON
    gives = PortType.TEXT

    @field_validator("template")
    @classmethod
    def _is_template(cls, text: str, info: ValidationInfo) -> str:
        if "syntax" in info.data:  # Else the syntax is at fault.
            Template(text, info.data["syntax"])
        return text

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        template = Template(self.template, self.syntax)

        def formatted(inputs: Mapping[str, Any]) -> str:
            value = as_json(inputs[VALUE])
            objects = value if isinstance(value, list) else [value]
            if len(objects) > LIST_ITEMS_MAX:
                raise FailedPrecondition(f"the array has {len(objects)} items; at most {LIST_ITEMS_MAX} are formatted")
            return bounded_join([template.render(self._values(each, template)) for each in objects], self.separator)

        return formatted

    def _values(self, value: Any, template: Template) -> dict[str, str]:
        if not isinstance(value, dict):
            raise FailedPrecondition("format takes a JSON object, or an array of objects; it was given something else")
        return {
            name: as_text(value[name]) if name in value else self._otherwise(f"the object has no key {name!r}")
            for name in template.variables
        }


def _child(value: Any, step: str | int) -> Any:
    if isinstance(value, dict) and isinstance(step, str):
        return value[step]
    if isinstance(value, list) and isinstance(step, int):
        return value[step]
    raise LookupError(step)
