"""What the LangChain components share: a target, a deadline, and a client for each event loop that calls them."""

import asyncio
import threading
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from penstock.clients.background import BACKGROUND
from penstock.clients.connection import Client

CONFIG: Final = ConfigDict(extra="forbid", populate_by_name=True)
"""A field that does not exist is an error, so that a misspelt one is not ignored."""


class ClientPerLoop:
    """A client belongs to one event loop; LangChain's objects are called from many, sync calls from the background's.

    A client that is forgotten closes its channel, so nothing is left open when the component itself is forgotten.
    """

    def __init__(self, client_class: type[Client]) -> None:
        self._client_class = client_class
        self._lock = threading.Lock()
        self._clients: dict[tuple[asyncio.AbstractEventLoop, str, str, frozenset[str]], Client] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles connect for themselves.
        return type(self), (self._client_class,)

    def here(self, target: str, api_key: str, principals: frozenset[str]) -> Any:
        """The running loop's client of `target`. Those of closed loops are forgotten."""
        key = asyncio.get_running_loop(), target, api_key, principals
        with self._lock:
            self._clients = {each: client for each, client in self._clients.items() if not each[0].is_closed()}
            if key not in self._clients:
                self._clients[key] = self._client_class(target, api_key=api_key, principals=principals)
            return self._clients[key]

    async def aclose(self) -> None:
        """Closes the clients of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            leaving = [self._clients.pop(key) for key in list(self._clients) if key[0] is loop]
        for client in leaving:
            await client.aclose()


class Connected(BaseModel):
    """Mixin of the components. Each sets its `model_config` to CONFIG, which LangChain's base would otherwise override."""

    client_class: ClassVar[type[Client]]

    target: str
    """Where the service listens, as gRPC writes it: "127.0.0.1:50051" or "dns:///penstock-retrieval:50051"."""
    timeout_s: float = Field(default=300.0, gt=0, alias="timeout")
    """Deadline of one call in seconds; `timeout` is LangChain's name for it."""
    api_key: SecretStr = SecretStr("")
    """Shown to a service that asks for one."""
    principals: frozenset[str] = frozenset()
    """On whose behalf calls are made, such as "user:ann", where the service lets the caller say so."""

    _clients: ClientPerLoop = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._clients = ClientPerLoop(type(self).client_class)

    def _here(self) -> Any:
        return self._clients.here(self.target, self.api_key.get_secret_value(), self.principals)

    def close(self) -> None:
        """Closes what sync calls have opened. Another call opens it again."""
        BACKGROUND.run(self._clients.aclose())

    async def aclose(self) -> None:
        """Closes what the running event loop's calls have opened. Another call opens it again."""
        await self._clients.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
