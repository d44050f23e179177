"""Operations on a list of texts."""

from collections.abc import Callable, Mapping
from string import punctuation
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from gateway.flow_model import InputPort
from gateway.nodes.operations.base import LIST_ITEMS_MAX, VALUE, Operation, OrDefault, port
from gateway.values import PortType, bounded_join
from penstock.errors import FailedPrecondition

_AROUND: Final = punctuation + " \u2018\u2019\u201c\u201d\u00ab\u00bb\u2026\u3002\u3001\uff01\uff1f"


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


class Vote(OrDefault):
    """The text that a list has most often. Of several, the one that stands first."""

    operation: Literal["vote"]
    normalise: bool = Field(
        default=True,
        description="Whether texts count as the same that differ only in case, in white space, and in punctuation around them. "
        "The spelling that stands first is given.",
    )
    default: str | None = Field(default=None, description="What to give for an empty list. Left out: the run fails.")
    accepts = PortType.LIST
    gives = PortType.TEXT

    def apply(self, value: tuple[str, ...]) -> str:
        if not value:
            return str(self._otherwise("an empty list has no text that it has most often"))
        spellings: dict[str, str] = {}
        votes: dict[str, int] = {}
        for text in value:
            key = _normalised(text) if self.normalise else text
            spellings.setdefault(key, text)
            votes[key] = votes.get(key, 0) + 1
        return spellings[max(votes, key=votes.__getitem__)]  # max takes the first of several, and dicts keep their order.


class ArgMax(OrDefault):
    """What has the highest score, a text beside a list of scores or an object of a JSON array. Of several, the first."""

    operation: Literal["argmax"]
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="With it the value is a JSON array of objects, this is their score's key, and the object is given. Without "
        "it the value is a list of texts, and the input scores a JSON array with a number for each.",
    )
    default: Any = Field(
        default=None, description="What to give for an empty list: without key a text. Left out: the run fails."
    )

    @model_validator(mode="after")
    def _default_is_of_the_type(self) -> "ArgMax":
        if self.key is None and not isinstance(self.default, str | None):
            message = "without key the default is a text"
            raise ValueError(message)
        return self

    def input_ports(self) -> tuple[InputPort, ...]:
        if self.key is not None:
            return (port(VALUE, PortType.JSON),)
        return (port(VALUE, PortType.LIST), port("scores", PortType.JSON))

    def output_type(self) -> PortType:
        return PortType.TEXT if self.key is None else PortType.JSON

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        def best(inputs: Mapping[str, Any]) -> Any:
            items = inputs[VALUE]
            if not isinstance(items, list | tuple):
                raise FailedPrecondition("argmax takes a list; the value is none")
            scores = inputs["scores"] if self.key is None else [_score(item, self.key) for item in items]
            if not isinstance(scores, list | tuple) or len(scores) != len(items):
                raise FailedPrecondition(f"argmax takes a score for each of the {len(items)} items; scores has not as many")
            if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
                raise FailedPrecondition("argmax takes scores that are numbers; one is not")
            return items[scores.index(max(scores))] if items else self._otherwise("an empty list has no highest score")

        return best


def _score(item: Any, key: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise FailedPrecondition(f"argmax takes objects that have a {key[:80]!r}; one has none")
    return item[key]


def _normalised(text: str) -> str:
    words = " ".join(text.casefold().split())
    return words.strip(_AROUND) or words
