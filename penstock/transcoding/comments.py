"""The protos' comments, which generated stubs lose. protos/generate.py writes them to comments.json beside this module."""

from functools import cache
from importlib.resources import files

import orjson


def comment(full_name: str) -> str:
    """The comment of an element by its full name, an enum's value under its enum; empty when there is none."""
    return _comments().get(full_name, "")


@cache
def _comments() -> dict[str, str]:
    loaded: dict[str, str] = orjson.loads((files(__package__) / "comments.json").read_bytes())
    return loaded
