"""Secrets that headers of requests have: variables of the gateway's environment, with a beginning that marks them as meant."""

from collections.abc import Mapping
from typing import Final

from penstock.errors import FlowMisconfigured

PREFIX: Final = "PENSTOCK_SECRET_"


class Secrets:
    """What the operator keeps, by its name without the beginning."""

    __slots__ = ("_kept",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._kept = {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}

    def get(self, name: str) -> str:
        """Raises FlowMisconfigured where there is nothing."""
        found = self._kept.get(name)
        if not found:
            raise FlowMisconfigured(f"there is no secret {name!r}: set {PREFIX}{name}", metadata={"secret": name})
        return found
