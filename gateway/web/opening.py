"""The Web of a gateway: a real one where the operator allows any host, and one that refuses everything elsewhere.

aiohttp takes a tenth of a second and more to import, which a gateway without it need not spend.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from gateway.backends import Web, WebAnswer, WebRequest
from gateway.web.hosts import HostEntry
from gateway.web.limits import WebLimits
from gateway.web.secret_store import Secrets
from penstock.errors import PermissionDenied


@asynccontextmanager
async def open_web(entries: tuple[HostEntry, ...], environment: Mapping[str, str], limits: WebLimits) -> AsyncIterator[Web]:
    """The Web. Secrets are variables of `environment` (secret_store.py)."""
    secrets = Secrets(environment)
    if not entries:
        yield ClosedWeb(secrets)
        return
    from gateway.web.client import open_client  # noqa: PLC0415  # As said above.

    async with open_client(entries, secrets, limits) as client:
        yield client


class ClosedWeb:
    """The Web where no host is allowed."""

    def __init__(self, secrets: Secrets) -> None:
        self.secret = secrets.get

    async def send(self, request: WebRequest) -> WebAnswer:  # noqa: ARG002  # It refuses whatever it is.
        raise PermissionDenied("PENSTOCK_GATEWAY_HTTP_HOSTS allows no host; list those that flows may ask")
