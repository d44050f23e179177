"""How the faults of a flow document are worded: what was found, what is expected, and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError

from penstock.errors import Violation

QUOTED_CHARS_MAX: Final = 80
CHOICES_MAX: Final = 24

# pydantic's words for what these rules check, in ours.
_REWORDED: Final = (("Input should be ", "must be "), ("Input should ", "must "), ("Value error, ", ""))


def quoted(value: object) -> str:
    """A value as a message shows it: as JSON, cut short. Documents are data from outside and may be of any length."""
    if isinstance(value, str):
        value = value[: QUOTED_CHARS_MAX + 1]
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # Not JSON, or nested deeper than orjson writes.
        text = type(value).__name__
    return text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}..."


def suggestion(word: str, choices: Iterable[str], noun: str) -> str:
    """What to write in place of a word that is not known."""
    known = sorted(choices)
    listed = ", ".join(known[:CHOICES_MAX]) + (", ..." if len(known) > CHOICES_MAX else "")
    listing = f"{noun}: {listed}" if known else f"{noun}: none"
    close = get_close_matches(word[:QUOTED_CHARS_MAX], known, n=1)
    return f"did you mean {close[0]!r}? {listing}" if close else listing


def violations_of(error: ValidationError, model: type[BaseModel], *, node_id: str = "", place: str = "") -> list[Violation]:
    """The faults that pydantic found, as ours. `place` is where the validated object stands, such as "params"."""
    return [_violation(fault, model, node_id, place) for fault in error.errors(include_url=False)]


def _violation(fault: Any, model: type[BaseModel], node_id: str, place: str) -> Violation:
    path = [str(step) for step in fault["loc"]]
    field = ".".join([*([place] if place else []), *(step[:QUOTED_CHARS_MAX] for step in path)])
    names = [info.alias or name for name, info in model.model_fields.items()]
    if fault["type"] == "extra_forbidden":
        message = f"unknown field {quoted(path[-1])}"
        return Violation(node_id=node_id, field=field, message=message, suggestion=suggestion(path[-1], names, "known fields"))
    if fault["type"] == "missing":
        return Violation(node_id=node_id, field=field, message="is required", suggestion=_description(model, path))
    message = fault["msg"]
    for theirs, ours in _REWORDED:
        message = message.replace(theirs, ours)
    if fault["type"] != "value_error":
        message = f"{message}; found {quoted(fault['input'])}"
    return Violation(node_id=node_id, field=field, message=message, suggestion=_description(model, path))


def _description(model: type[BaseModel], path: list[str]) -> str:
    for name, info in model.model_fields.items():
        if path and path[0] == (info.alias or name):
            return info.description or ""
    return ""
