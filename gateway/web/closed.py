"""The Web port of a gateway that allows no host, as it is by default; and secrets, which need no host.

Apart from client.py, so that such a gateway does not wait for an HTTP client's import.
"""

from collections.abc import Mapping
from typing import Final

from gateway.backends import WebAnswer, WebRequest
from penstock.errors import FlowMisconfigured, PermissionDenied

SECRET_PREFIX: Final = "PENSTOCK_SECRET_"  # noqa: S105  # The beginning of names, no secret.


class Secrets:
    """The variables of `environment` whose names begin with SECRET_PREFIX."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._secrets = {
            name.removeprefix(SECRET_PREFIX): value for name, value in environment.items() if name.startswith(SECRET_PREFIX)
        }

    def secret(self, name: str) -> str:
        """Raises FlowMisconfigured."""
        found = self._secrets.get(name)
        if not found:
            raise FlowMisconfigured(f"there is no secret {name!r}: set {SECRET_PREFIX}{name}", metadata={"secret": name})
        return found


class ClosedWeb(Secrets):
    """The Web without hosts."""

    async def send(self, request: WebRequest) -> WebAnswer:
        raise PermissionDenied(f"PENSTOCK_GATEWAY_HTTP_HOSTS allows no host, and so not {request.url[:200]!r}")
