"""The closed set of operations that a transform node can do: pure, typed, and bounded in time and size.

There are no regular expressions here: Python's can take exponential time on a text that a stranger chose.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import orjson
from pydantic import AfterValidator, Field

from gateway.nodes.spec import NodeParams
from gateway.nodes.template import Template, checked_for
from gateway.values import DEPTH_MAX, Document, PortType, as_json, as_text, bounded_join, check_chars, is_deeper
from penstock.errors import FailedPrecondition

LIST_ITEMS_MAX: Final = 10_000
JSON_CHARS_MAX: Final = 2**20
PASSAGE_VARIABLES: Final = frozenset({"index", "text", "score", "chunk_id", "document_id"})


class Operation(NodeParams):
    """Parameters of one operation and what it does. `apply` takes and gives values of the types it declares."""

    accepts: ClassVar[PortType]
    gives: ClassVar[PortType]

    def apply(self, value: Any) -> Any:
        raise NotImplementedError


class OrDefault(Operation):
    """An operation that the value may not allow. It then gives `default`, or fails where there is none."""

    default: Any = Field(default=None, description="What to give when it cannot be done. Left out: the run fails.")

    def _otherwise(self, problem: str) -> Any:
        if self.default is None:
            raise FailedPrecondition(f"{problem}, and the node has no default")
        return self.default


class Upper(Operation):
    """A text in upper case."""

    operation: Literal["upper"]
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        return value.upper()


class Lower(Operation):
    """A text in lower case."""

    operation: Literal["lower"]
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        return value.lower()


class Strip(Operation):
    """A text without the white space around it."""

    operation: Literal["strip"]
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        return value.strip()


class Replace(Operation):
    """A text with every occurrence of one text replaced by another."""

    operation: Literal["replace"]
    old: str = Field(min_length=1, max_length=4096, description="What to replace, taken literally.")
    new: str = Field(max_length=65_536, description="What to put in its place.")
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        check_chars(len(value) + value.count(self.old) * (len(self.new) - len(self.old)))
        return value.replace(self.old, self.new)


class TruncateChars(Operation):
    """The beginning of a text."""

    operation: Literal["truncate_chars"]
    max_chars: int = Field(ge=1, le=2**22, description="Most characters to keep.")
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        return value[: self.max_chars]


class Split(Operation):
    """The parts of a text between separators."""

    operation: Literal["split"]
    separator: str = Field(default="\n", min_length=1, max_length=256, description="What stands between the parts.")
    max_items: int = Field(default=1000, ge=1, le=LIST_ITEMS_MAX, description="Most parts; the last holds the rest.")
    accepts = PortType.TEXT
    gives = PortType.LIST

    def apply(self, value: str) -> tuple[str, ...]:
        return tuple(value.split(self.separator, self.max_items - 1))


class Join(Operation):
    """The texts of a list as one."""

    operation: Literal["join"]
    separator: str = Field(default="\n", max_length=4096, description="What to put between the texts.")
    accepts = PortType.LIST
    gives = PortType.TEXT

    def apply(self, value: tuple[str, ...]) -> str:
        return bounded_join(value, self.separator)


class Select(OrDefault):
    """One text of a list."""

    operation: Literal["select"]
    index: int = Field(ge=-LIST_ITEMS_MAX, lt=LIST_ITEMS_MAX, description="Which, from 0; negative counts from the end.")
    default: str | None = Field(default=None, description="What to give when the list is too short. Left out: the run fails.")
    accepts = PortType.LIST
    gives = PortType.TEXT

    def apply(self, value: tuple[str, ...]) -> str:
        if -len(value) <= self.index < len(value):
            return value[self.index]
        return str(self._otherwise(f"the list has {len(value)} items, none at {self.index}"))


class FormatDocuments(Operation):
    """Passages as one text, each through a template."""

    operation: Literal["format_documents"]
    template: Annotated[str, AfterValidator(checked_for(PASSAGE_VARIABLES))] = Field(
        default="[{index}] {text}",
        max_length=4096,
        description="Of {index} (from 1), {text}, {score}, {chunk_id}, {document_id}.",
    )
    separator: str = Field(default="\n\n", max_length=256, description="What to put between the passages.")
    accepts = PortType.DOCUMENTS
    gives = PortType.TEXT

    def apply(self, value: tuple[Document, ...]) -> str:
        template = Template(self.template)
        passages = [template.render(_passage(index, document)) for index, document in enumerate(value, start=1)]
        return bounded_join(passages, self.separator)


class FirstDocuments(Operation):
    """The nearest of the passages."""

    operation: Literal["first_documents"]
    count: int = Field(ge=1, le=1000, description="Most passages to keep.")
    accepts = PortType.DOCUMENTS
    gives = PortType.DOCUMENTS

    def apply(self, value: tuple[Document, ...]) -> tuple[Document, ...]:
        return value[: self.count]


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


def _child(value: Any, step: str | int) -> Any:
    if isinstance(value, dict) and isinstance(step, str):
        return value[step]
    if isinstance(value, list) and isinstance(step, int):
        return value[step]
    raise LookupError(step)


def _passage(index: int, document: Document) -> Mapping[str, str]:
    return {
        "index": str(index),
        "text": document.text,
        "score": f"{document.score:.4f}",
        "chunk_id": document.chunk_id,
        "document_id": document.document_id,
    }


OPERATIONS: Final[dict[str, type[Operation]]] = {
    "upper": Upper,
    "lower": Lower,
    "strip": Strip,
    "replace": Replace,
    "truncate_chars": TruncateChars,
    "split": Split,
    "join": Join,
    "select": Select,
    "format_documents": FormatDocuments,
    "first_documents": FirstDocuments,
    "parse_json": ParseJson,
    "get": Get,
    "to_text": ToText,
}
