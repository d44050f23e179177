"""Operations with regular expressions, of RE2: they take time that grows with the text, whatever the pattern."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.nodes.operations.base import LIST_ITEMS_MAX, VALUE, Operation, OrDefault
from gateway.patterns import PATTERN_CHARS_MAX, Pattern, Replacement, checked, replaced
from gateway.values import PortType

_PATTERN: Final = Field(
    min_length=1,
    max_length=PATTERN_CHARS_MAX,
    description="A regular expression of RE2, which matches anywhere in the text. (?i) before it ignores case, (?s) lets . "
    "match line breaks, (?m) lets ^ and $ match at lines. It has no look-around and no back-references.",
)
PatternText = Annotated[str, AfterValidator(checked)]


class RegexTest(Operation):
    """Whether a pattern matches anywhere in a text."""

    operation: Literal["regex_test"]
    pattern: PatternText = _PATTERN
    accepts = PortType.TEXT
    gives = PortType.BOOLEAN

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        pattern = Pattern(self.pattern)
        return lambda inputs: pattern.test(inputs[VALUE])


class RegexExtract(OrDefault):
    """What a pattern matches in a text: the first or last match, or a list of all."""

    operation: Literal["regex_extract"]
    pattern: PatternText = _PATTERN
    group: int | str | None = Field(
        default=None,
        description="Which part of a match to give: the number or name of a group, 0 for the whole. Left out: the first group, "
        "or the whole where the pattern has none.",
    )
    matches: Literal["first", "last", "all"] = Field(default="first", description="Which matches to give; all gives a list.")
    max_items: int = Field(default=1000, ge=1, le=LIST_ITEMS_MAX, description="Most matches to look at, from the beginning.")
    default: str | None = Field(
        default=None, description="What to give when nothing matches. Left out: the run fails; all gives an empty list."
    )

    @field_validator("group")
    @classmethod
    def _is_group(cls, group: int | str | None, info: ValidationInfo) -> int | str | None:
        if group is not None and "pattern" in info.data:
            Pattern(info.data["pattern"]).group(group)
        return group

    @model_validator(mode="after")
    def _default_is_used(self) -> "RegexExtract":
        if self.matches == "all" and self.default is not None:
            message = "all matches are a list, which is empty where nothing matches; leave the default out"
            raise ValueError(message)
        return self

    accepts = PortType.TEXT

    def output_type(self) -> PortType:
        return PortType.LIST if self.matches == "all" else PortType.TEXT

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        pattern = Pattern(self.pattern)
        group = min(1, pattern.groups) if self.group is None else pattern.group(self.group)
        most = 1 if self.matches == "first" else self.max_items

        def extracted(inputs: Mapping[str, Any]) -> Any:
            found = tuple(match[group] or "" for match in islice(pattern.matches(inputs[VALUE]), most))
            if self.matches == "all":
                return found
            return found[-1] if found else self._otherwise(f"nothing in the text matches {self.pattern[:80]!r}")

        return extracted


class RegexReplace(Operation):
    """A text with what a pattern matches replaced."""

    operation: Literal["regex_replace"]
    pattern: PatternText = _PATTERN
    new: str = Field(
        max_length=65_536,
        description=r"What to put for a match: \1 to \99 and \g<name> are its groups, \0 the whole, \\ a backslash.",
    )
    max_items: int = Field(default=LIST_ITEMS_MAX, ge=1, le=LIST_ITEMS_MAX, description="Most matches to replace.")
    accepts = PortType.TEXT
    gives = PortType.TEXT

    @field_validator("new")
    @classmethod
    def _is_replacement(cls, text: str, info: ValidationInfo) -> str:
        if "pattern" in info.data:
            Replacement(text, Pattern(info.data["pattern"]))
        return text

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        pattern = Pattern(self.pattern)
        replacement = Replacement(self.new, pattern)
        return lambda inputs: replaced(inputs[VALUE], pattern, replacement, self.max_items)


class RegexSplit(Operation):
    """The parts of a text between what a pattern matches."""

    operation: Literal["regex_split"]
    pattern: PatternText = _PATTERN
    max_items: int = Field(default=1000, ge=1, le=LIST_ITEMS_MAX, description="Most parts; the last holds the rest.")
    keep_empty: bool = Field(default=False, description="Whether parts without a character are among them.")
    accepts = PortType.TEXT
    gives = PortType.LIST

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        pattern = Pattern(self.pattern)

        def parts(inputs: Mapping[str, Any]) -> tuple[str, ...]:
            text: str = inputs[VALUE]
            found: list[str] = []
            end = 0
            for match in pattern.matches(text):
                if len(found) >= self.max_items - 1:
                    break
                if self.keep_empty or match.start() > end:
                    found.append(text[end : match.start()])
                end = match.end()
            return (*found, text[end:]) if self.keep_empty or end < len(text) else tuple(found)

        return parts
