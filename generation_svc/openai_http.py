"""The one connection pool to an OpenAI-compatible endpoint, and where aiohttp's exceptions become ours.

Connections are kept alive, used again, and bounded: whoever would need one more waits for it, within the deadline, and may be
cancelled meanwhile. Leaving an answer before its end closes its connection, by which such servers know that nobody waits.
"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from generation_svc.openai_answer import json_object
from generation_svc.openai_errors import error_of
from generation_svc.settings import GenerationSettings
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable

ENGINE: Final = "openai"
_BODY_BYTES_MAX: Final = 64 * 2**20
_PROBE_ANSWER_S: Final = 10.0
_BEHIND_DEADLINE_S: Final = 0.5
_KEEPALIVE_S: Final = 60.0


class Endpoint:
    """One endpoint, at its base URL (/v1) and at the root above it, where vLLM and SGLang have what is not OpenAI's."""

    def __init__(self, settings: GenerationSettings) -> None:
        key = settings.openai_api_key.get_secret_value()
        self.base_url = URL(str(settings.openai_base_url).rstrip("/"))
        self.root_url = self.base_url.parent
        self._connect_timeout_s = settings.openai_connect_timeout_s
        self._idle_timeout_s = settings.openai_idle_timeout_s
        self._deadline_s = settings.deadline_s
        self._session = aiohttp.ClientSession(
            # There is one host, so the limit is also the host's.
            connector=aiohttp.TCPConnector(limit=settings.running_max, keepalive_timeout=_KEEPALIVE_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            skip_auto_headers=("User-Agent",),
            cookie_jar=aiohttp.DummyCookieJar(),  # No such endpoint has any, and to look for them takes as long as to send.
        )

    @property
    def closed(self) -> bool:
        return self._session.closed

    async def close(self) -> None:
        await self._session.close()

    async def look_up(self, url: URL) -> Any:
        """The JSON object at a URL, read at the start. None: there is none (404)."""
        timeout = aiohttp.ClientTimeout(total=self._connect_timeout_s + _PROBE_ANSWER_S)
        with self.translated():
            async with self._session.get(url, timeout=timeout) as response:
                body = await read_all(response)
        if response.status == 404:
            return None
        if response.status != 200:
            raise error_of(response.status, response.headers, body)
        return json_object(body)

    async def call(self, url: URL, body: Any) -> Any:
        """The JSON object that a POST answers with."""
        with self.translated():
            async with self.post(url, body, {}, streamed=False) as response:
                answer = await read_all(response)
        if response.status != 200:
            raise error_of(response.status, response.headers, answer)
        return json_object(answer)

    def post(
        self, url: URL, body: Any, headers: dict[str, str], *, streamed: bool
    ) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
        """An answer. Its connection goes back to the pool when it was read to the end, and is closed else."""
        timeout = aiohttp.ClientTimeout(
            # The runtime's own deadline comes before, and says better whose time was up.
            total=remaining_s(self._deadline_s) + _BEHIND_DEADLINE_S,
            sock_connect=self._connect_timeout_s,
            # A whole answer is silent until it is made.
            sock_read=self._idle_timeout_s if streamed else None,
        )
        headers = {"Content-Type": "application/json", **headers}
        return self._session.post(url, data=orjson.dumps(body), headers=headers, timeout=timeout)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises aiohttp's exceptions as BackendUnavailable; what they were is its __cause__."""
        try:
            yield
        except TimeoutError as error:
            raise self._unavailable("did not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise self._unavailable(f"cannot be reached ({error.os_error})") from error
        except aiohttp.ClientError as error:
            raise self._unavailable(f"broke off ({type(error).__name__})") from error
        except RuntimeError as error:
            if not self.closed:
                raise
            raise self._unavailable("was closed here") from error  # As aiohttp says it to whoever reads on.

    def _unavailable(self, what: str) -> BackendUnavailable:
        url = str(self.base_url)
        return BackendUnavailable(f"the endpoint {url} {what}", metadata={"service": ENGINE, "endpoint": url})


async def read_all(response: aiohttp.ClientResponse) -> bytes:
    """A body, at most 64 MiB of it."""
    parts: list[bytes] = []
    left = _BODY_BYTES_MAX
    while left and (part := await response.content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
