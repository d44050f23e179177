"""Operations on a text."""

from typing import Literal

from pydantic import Field

from gateway.nodes.operations.base import LIST_ITEMS_MAX, Operation
from gateway.nodes.operations.tokens import beginning, end
from gateway.values import PortType, check_chars


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


class TruncateTokens(Operation):
    """The beginning or the end of a text, by an estimate of its tokens that needs no model (see the guide)."""

    operation: Literal["truncate_tokens"]
    max_tokens: int = Field(ge=1, le=1_000_000, description="Most tokens to keep. Of prose, about a quarter fewer are kept.")
    keep: Literal["beginning", "end"] = Field(default="beginning", description="Which part of the text is kept.")
    accepts = PortType.TEXT
    gives = PortType.TEXT

    def apply(self, value: str) -> str:
        return beginning(value, self.max_tokens) if self.keep == "beginning" else end(value, self.max_tokens)


class Split(Operation):
    """The parts of a text between separators."""

    operation: Literal["split"]
    separator: str = Field(default="\n", min_length=1, max_length=256, description="What stands between the parts.")
    max_items: int = Field(default=1000, ge=1, le=LIST_ITEMS_MAX, description="Most parts; the last holds the rest.")
    accepts = PortType.TEXT
    gives = PortType.LIST

    def apply(self, value: str) -> tuple[str, ...]:
        return tuple(value.split(self.separator, self.max_items - 1))
