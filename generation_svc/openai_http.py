"""The one way to an OpenAI-compatible endpoint, and where its connections' exceptions become ours.

Connections are kept alive, used again, and bounded: whoever would need one more waits for it, within the deadline, and may be
cancelled meanwhile. Leaving an answer before its end closes its connection, by which such servers know that nobody waits.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from generation_svc.openai_answer import json_object
from generation_svc.openai_connections import BrokenOff, CannotConnect, Connections, Response
from generation_svc.openai_errors import error_of
from generation_svc.settings import GenerationSettings
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable, FailedPrecondition

ENGINE: Final = "openai"
_BODY_BYTES_MAX: Final = 64 * 2**20
_PROBE_ANSWER_S: Final = 10.0
_BEHIND_DEADLINE_S: Final = 0.5
_PORTS: Final = {"http": 80, "https": 443}


class Endpoint:
    """One endpoint: its base URL (/v1), and the root above it, where vLLM and SGLang have what is not OpenAI's."""

    def __init__(self, settings: GenerationSettings) -> None:
        url = urlsplit(str(settings.openai_base_url).rstrip("/"))
        self.base_path = quote(url.path, safe="/%:@!$&'()*+,;=~")
        self.root_path = self.base_path.rpartition("/")[0]
        self.base_url = url.geturl()
        self._connect_timeout_s = settings.openai_connect_timeout_s
        self._idle_timeout_s = settings.openai_idle_timeout_s
        self._deadline_s = settings.deadline_s
        key = settings.openai_api_key.get_secret_value()
        if not (key.isascii() and key.isprintable()):
            raise FailedPrecondition("the endpoint's key has characters that no HTTP header can carry; is it whole, and alone?")
        host = url.netloc.rpartition("@")[2]
        self._fixed = {"host": host, "accept": "*/*", **({"authorization": f"Bearer {key}"} if key else {})}
        self._connections = Connections(
            host=url.hostname or "",
            port=url.port or _PORTS.get(url.scheme, 80),
            tls=url.scheme == "https",
            connections_max=settings.running_max,
            connect_timeout_s=self._connect_timeout_s,
        )

    @property
    def closed(self) -> bool:
        return self._connections.closed

    async def close(self) -> None:
        await self._connections.close()

    async def look_up(self, path: str) -> Any:
        """The JSON object at a path, read at the start. None: there is none (404)."""
        head = self._head("GET", path, {}, 0)
        total_s = self._connect_timeout_s + _PROBE_ANSWER_S
        with self.translated():
            async with self._connections.request(head, b"", total_s=total_s, silence_max_s=math.inf) as response:
                body = await read_all(response)
        if response.status == 404:
            return None
        if response.status != 200:
            raise error_of(response.status, response.headers, body)
        return json_object(body)

    async def call(self, path: str, body: Any) -> Any:
        """The JSON object that a POST answers with."""
        with self.translated():
            async with self.post(path, body, {}, streamed=False) as response:
                answer = await read_all(response)
        if response.status != 200:
            raise error_of(response.status, response.headers, answer)
        return json_object(answer)

    def post(
        self, path: str, body: Any, headers: Mapping[str, str], *, streamed: bool
    ) -> AbstractAsyncContextManager[Response]:
        """An answer. Its connection is used again when it was read to the end, and is closed else."""
        data = orjson.dumps(body)
        return self._connections.request(
            self._head("POST", path, headers, len(data)),
            data,
            # The runtime's own deadline comes before, and says better whose time was up.
            total_s=remaining_s(self._deadline_s) + _BEHIND_DEADLINE_S,
            # A whole answer is silent until it is made.
            silence_max_s=self._idle_timeout_s if streamed else math.inf,
        )

    def _head(self, verb: str, path: str, headers: Mapping[str, str], size: int) -> bytes:
        lines = [f"{name}: {value}\r\n" for told in (self._fixed, headers) for name, value in told.items()]
        more = f"content-type: application/json\r\ncontent-length: {size}\r\n" if verb == "POST" else ""
        return f"{verb} {path} HTTP/1.1\r\n{''.join(lines)}{more}\r\n".encode("latin-1")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises the connections' exceptions as BackendUnavailable; what they were is its __cause__."""
        try:
            yield
        except TimeoutError as error:
            raise self._unavailable("did not answer in time") from error
        except CannotConnect as error:
            raise self._unavailable(f"cannot be reached ({error})") from error
        except BrokenOff as error:
            raise self._unavailable(f"broke off ({error})") from error
        except RuntimeError as error:
            if not self.closed:
                raise
            raise self._unavailable("was closed here") from error

    def _unavailable(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"the endpoint {self.base_url} {what}", metadata={"service": ENGINE, "endpoint": self.base_url}
        )


async def read_all(response: Response, begin: bytes = b"") -> bytes:
    """A body, at most 64 MiB of it."""
    parts, left = [begin], _BODY_BYTES_MAX - len(begin)
    while left > 0 and (part := await response.read()):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
