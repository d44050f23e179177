"""The faults of a flow document: how they are collected, and how they are worded.

Documents come from strangers, and one of 1 MiB can hold a hundred thousand faults, each of which takes time to word. Hence the
bounds: on the faults that are told, on the fields of an object, on the names that a misspelt one is compared with.
"""

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from penstock.errors import Violation

FAULTS_MAX: Final = 100
FIELDS_MAX: Final = 64
QUOTED_CHARS_MAX: Final = 80
CHOICES_MAX: Final = 16
COMPARED_MAX: Final = 128
COMPARED_CHARS_MAX: Final = 32

# pydantic's words for what these rules check, in ours.
_REWORDED: Final = (("Input should be ", "must be "), ("Input should ", "must "), ("Value error, ", ""))

M = TypeVar("M", bound=BaseModel)


class Faults:
    """What is wrong with a document: the first FAULTS_MAX faults."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def full(self) -> bool:
        """Whether to stop looking."""
        return len(self._found) >= FAULTS_MAX

    def add(self, message: str, *, node_id: str = "", field: str = "", suggestion: str = "") -> None:
        """Adds a fault, if there is room."""
        if not self.full:
            self._found.append(Violation(message=message, node_id=node_id, field=field, suggestion=suggestion))

    def told(self) -> tuple[Violation, ...]:
        """The faults in the order in which they were found."""
        return tuple(self._found)


def checked(model: type[M], value: object, faults: Faults, *, node_id: str = "", place: str = "") -> M | None:
    """`value` as `model`, or None and what is wrong with it. `place` is where it stands, such as "params"."""
    if isinstance(value, dict) and len(value) > FIELDS_MAX:
        faults.add(f"has {len(value)} fields; at most {FIELDS_MAX} are read", node_id=node_id, field=place)
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            _add(faults, fault, model, node_id, place)
    return None


def quoted(value: object) -> str:
    """A value as a message shows it: as JSON, cut short."""
    if isinstance(value, str):
        value = value[: QUOTED_CHARS_MAX + 1]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it.
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # Not JSON, or nested deeper than orjson writes.
        text = type(value).__name__
    return text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}..."


def listed(names: Collection[str]) -> str:
    """Names as a message lists them: not all of very many."""
    return ", ".join(islice(names, CHOICES_MAX)) + (", ..." if len(names) > CHOICES_MAX else "")


def suggestion(word: str, choices: Iterable[str], noun: str) -> str:
    """What to write in place of a word that is not known."""
    known = sorted(choices)
    listing = f"{noun}: {listed(known) or 'none'}"
    compared = {name[:COMPARED_CHARS_MAX]: name for name in known[:COMPARED_MAX]}
    close = get_close_matches(word[:COMPARED_CHARS_MAX], compared, n=1)
    return f"did you mean {compared[close[0]]!r}? {listing}" if close else listing


def _add(faults: Faults, fault: Any, model: type[BaseModel], node_id: str, place: str) -> None:
    path = [str(step)[:QUOTED_CHARS_MAX] for step in fault["loc"]]
    field = ".".join([*([place] if place else []), *path])
    if fault["type"] == "extra_forbidden":
        message, hint = f"unknown field {quoted(path[-1])}", suggestion(path[-1], _names(model), "known fields")
    elif fault["type"] == "missing":
        message, hint = "is required", _description(model, path)
    else:
        message, hint = _reworded(fault), _description(model, path)
    faults.add(message, node_id=node_id, field=field, suggestion=hint)


def _reworded(fault: Any) -> str:
    message: str = fault["msg"]
    for theirs, ours in _REWORDED:
        message = message.replace(theirs, ours)
    return message if fault["type"] == "value_error" else f"{message}; found {quoted(fault['input'])}"


def _names(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _description(model: type[BaseModel], path: list[str]) -> str:
    for name, info in model.model_fields.items():
        if path and path[0] == (info.alias or name):
            return info.description or ""
    return ""
