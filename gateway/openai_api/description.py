"""What OpenAI's API adds to the gateway's OpenAPI document."""

from collections.abc import Mapping
from typing import Any


def described() -> Mapping[str, Any]:
    """Its paths and schemas."""
    return {"paths": {}, "components": {"schemas": {}}}
