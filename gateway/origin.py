"""Where an imported flow comes from: what its document says of it under "origin".

The importer writes it, and so may anybody who writes a document; hence nothing here is trusted, and what does not read as an
origin is none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ALIAS_CHARS_MAX: Final = 255
COMPONENTS_MAX: Final = 512
_FIELDS_MAX: Final = 512
_LENIENT: Final = ConfigDict(extra="ignore", frozen=True)

Name = Annotated[str, Field(max_length=256)]
Role = Literal["chat_input", "text_input", "webhook", "chat_output", "text_output", "data_output", ""]
_ALIAS: Final = re.compile(r"[\x21-\x7e]{1,255}")


class Source(BaseModel):
    """The component that feeds an output. `type` is what its makers call it: a model's name where it is one."""

    model_config = _LENIENT

    id: Name | None = None
    display_name: Name | None = None
    type: Name | None = None
    icon: Name | None = None


class Gives(BaseModel):
    """One output of a component. `port` is the "node.port" of ours that gives its value."""

    model_config = _LENIENT

    name: Name
    types: Annotated[list[Name], Field(max_length=32)] = []
    port: Name = ""


class Component(BaseModel):
    """A component of the flow that was imported, and what became of it.

    `input` and `output` name our flow's input or output; `nodes` are our nodes; `fields` say for a field of its which
    "node.param" or "input:name" of ours it became; a caller may set none that is `protected`. `variables` name, for a field,
    the global variable that it is read from.
    """

    model_config = _LENIENT

    id: Name
    type: Name = ""
    display_name: Name = ""
    role: Role = ""
    input: Name | None = None
    output: Name | None = None
    source: Source | None = None
    sender_name: Name | None = None
    nodes: Annotated[list[Name], Field(max_length=64)] = []
    outputs: Annotated[list[Gives], Field(max_length=32)] = []
    fields: Annotated[dict[Name, Name], Field(max_length=_FIELDS_MAX)] = {}
    protected: Annotated[list[Name], Field(max_length=_FIELDS_MAX)] = []
    variables: Annotated[dict[Name, Name], Field(max_length=_FIELDS_MAX)] = {}


class Origin(BaseModel):
    """An imported flow as it was where it comes from."""

    model_config = _LENIENT

    format: Name
    id: Name | None = None
    name: Name = ""
    endpoint_name: Name | None = None
    version: Name = ""
    components: Annotated[list[Component], Field(max_length=COMPONENTS_MAX)] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What lists tell of an origin: its format, and the flow's id and names there. All empty: it was written here."""

    format: str = ""
    id: str = ""
    name: str = ""
    endpoint_name: str = ""


NATIVE: Final = Provenance()


def read_origin(written: Mapping[str, Any] | None) -> Origin | None:
    """The origin that a document tells; None where it tells none that can be read."""
    if written is None:
        return None
    try:
        return Origin.model_validate(written)
    except ValidationError:
        return None


def provenance(written: Mapping[str, Any] | None) -> Provenance:
    """What lists tell of it."""
    origin = read_origin(written)
    if origin is None:
        return NATIVE
    return Provenance(
        format=origin.format, id=alias(origin.id or ""), name=origin.name, endpoint_name=alias(origin.endpoint_name or "")
    )


def alias(name: str) -> str:
    """A name under which a flow is looked for, UUIDs in their one spelling; empty where it can't be one."""
    try:
        return str(UUID(name))
    except ValueError:
        return name if _ALIAS.fullmatch(name) else ""
