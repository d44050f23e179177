"""A file of API keys for a gateway that asks for them."""

import json
from pathlib import Path

from penstock.keys import sha256_of

READING, WRITING = "psk_reading", "psk_writing"


def keys_file(folder: Path) -> Path:
    """One key that may read and run, and one that may only write."""
    path = folder / "keys.json"
    entries = [
        {"name": "reader", "key_sha256": sha256_of(READING), "scopes": ["read"]},
        {"name": "writer", "key_sha256": sha256_of(WRITING), "scopes": ["write"]},
    ]
    path.write_text(json.dumps(entries))
    return path
