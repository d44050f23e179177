"""What the dialect adds to the OpenAPI document."""

from collections.abc import Mapping
from typing import Any


def describe() -> Mapping[str, Any]:
    """The paths."""
    return {"paths": {}}
