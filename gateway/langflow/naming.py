"""Names of theirs as ours may be: ids of nodes, and ids of flows and collections."""

import re
from typing import Final

ID_CHARS_MAX: Final = 64


def plain_id(name: str) -> str:
    """A name as an id may be: a letter, then letters, digits, underscores and hyphens."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:ID_CHARS_MAX]
    return plain if plain[:1].isalpha() else f"n{plain}"[:ID_CHARS_MAX]


def slug(text: str) -> str:
    """A name as our collections and flows are named; empty where nothing is left of it."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63]
    return plain if plain[:1].isalpha() else f"c-{plain}"[:63] if plain else ""
