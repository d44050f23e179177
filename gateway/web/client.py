"""The Web port: requests to the hosts that the operator allows, and to no other address than the one that was checked.

Names are resolved here, every address is checked, and the connection goes to what was checked: there is no second look-up whose
answer could be another one. No redirection is followed, no proxy of the environment is used, no cookie is kept, and what comes
back is bounded. The gateway's only importer of aiohttp.
"""

import asyncio
import codecs
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.backends import WebAnswer, WebRequest
from gateway.web.addresses import is_public
from gateway.web.hosts import PORTS, HostEntry
from gateway.web.limits import WebLimits
from gateway.web.secret_store import Secrets
from penstock.deadline import remaining_s
from penstock.errors import (
    BackendUnavailable,
    InvalidArgument,
    MessageTooLarge,
    PenstockError,
    PermissionDenied,
)

_CONNECTIONS_MAX: Final = 64
_CONNECTIONS_OF_HOST_MAX: Final = 16
_FORBIDDEN_IN_HEADERS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TEXT_ENCODINGS: Final = re.compile(r"utf-8|utf-16(-[bl]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|(euc|shift|big5|gb).*")


class HttpWeb:
    """The Web. Made by `open_client`."""

    def __init__(
        self, session: aiohttp.ClientSession, entries: tuple[HostEntry, ...], secrets: Secrets, limits: WebLimits
    ) -> None:
        self._session = session
        self._entries = entries
        self.secret = secrets.get
        self._limits = limits

    async def send(self, request: WebRequest) -> WebAnswer:
        url = _url(request.url)
        self._check_allowed(url)
        _check_headers(request.headers)
        timeout_s = remaining_s(min(request.timeout_s or self._limits.timeout_s, self._limits.timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request, url)
        except TimeoutError:
            raise _unavailable(url, f"did not answer within {timeout_s:.3g} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, AddressRefused):
                raise error.os_error.told from None
            raise _unavailable(url, "has no address") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(url, f"cannot be reached: {error}") from error
        except ValueError as error:  # What aiohttp makes of an answer that is no HTTP, and of a host that is no name.
            raise _unavailable(url, f"cannot be talked to: {error}") from error

    async def _exchange(self, request: WebRequest, url: URL) -> WebAnswer:
        # Compressed, a small answer could be a very large one.
        headers = (
            {"accept": "application/json, text/*;q=0.9, */*;q=0.1"} | dict(request.headers) | {"accept-encoding": "identity"}
        )
        async with self._session.request(
            request.method, url, headers=headers, data=request.body, allow_redirects=False
        ) as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise _unavailable(url, "answered in a compressed form, which was not asked for")
            body = await self._body(response, url)
        return WebAnswer(
            status=response.status,
            text=body.decode(_charset(response), errors="replace"),
            headers={name.lower(): value for name, value in response.headers.items()},
        )

    async def _body(self, response: aiohttp.ClientResponse, url: URL) -> bytes:
        most = self._limits.answer_bytes_max
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > most:
                raise MessageTooLarge(
                    f"the answer of {url.host!r} has more than {most} bytes (PENSTOCK_GATEWAY_TOOL_ANSWER_BYTES_MAX)",
                    metadata={"limit": str(most), "host": str(url.host)},
                )
        return bytes(body)

    def _check_allowed(self, url: URL) -> None:
        host, port = _host(url), int(url.port or PORTS[url.scheme])
        entry = _allowing(self._entries, url.scheme, host, port)
        if entry is None:
            raise PermissionDenied(
                f"PENSTOCK_GATEWAY_HTTP_HOSTS does not allow {url.scheme}://{host}:{port}", metadata={"host": host}
            )
        # A name is checked when it is resolved; an address that is written as such is never resolved.
        if _is_number(host) and not entry.private and not is_public(host):
            raise refused(host, host)


@asynccontextmanager
async def open_client(
    entries: tuple[HostEntry, ...],
    secrets: Secrets,
    limits: WebLimits,
    resolver: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
) -> AsyncIterator[HttpWeb]:
    """The Web, over connections of its own. `resolver` makes what looks names up."""
    connector = aiohttp.TCPConnector(
        resolver=CheckedResolver(resolver(), entries),
        use_dns_cache=False,
        limit=_CONNECTIONS_MAX,
        limit_per_host=_CONNECTIONS_OF_HOST_MAX,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"user-agent": "penstock"},
    ) as session:
        yield HttpWeb(session, entries, secrets, limits)


class AddressRefused(OSError):
    """An address that may not be connected to, in the form in which aiohttp passes it through. `told` is what is raised."""

    def __init__(self, told: PenstockError) -> None:
        super().__init__(told.message)
        self.told = told


class CheckedResolver(AbstractResolver):
    """Resolves names, and refuses those of which any address is not public, unless the entry lets it be private."""

    def __init__(self, resolver: AbstractResolver, entries: tuple[HostEntry, ...]) -> None:
        self._resolver = resolver
        self._entries = entries

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        name = host.lower().rstrip(".")
        if any(entry.private and entry.holds(entry.scheme, name, port) for entry in self._entries):
            return found
        wrong = next((each["host"] for each in found if not is_public(each["host"])), None)
        if wrong is not None:
            raise AddressRefused(refused(host, wrong))
        return found

    async def close(self) -> None:
        await self._resolver.close()


def refused(host: str, address: str) -> PermissionDenied:
    """The error of a host at an address that is not public."""
    return PermissionDenied(
        f"{host!r} is at {address}, which is no address of the public internet; if that is meant, end its entry in "
        "PENSTOCK_GATEWAY_HTTP_HOSTS with !",
        metadata={"host": host},
    )


def _allowing(entries: tuple[HostEntry, ...], scheme: str, host: str, port: int) -> HostEntry | None:
    """The entry that lets the server be asked; of several one that lets it be private."""
    holding = sorted((entry for entry in entries if entry.holds(scheme, host, port)), key=lambda entry: not entry.private)
    return holding[0] if holding else None


def _url(text: str) -> URL:
    try:
        url = URL(text if text.isascii() and text.isprintable() else "", encoded=True)
        usable = (
            " " not in text and url.scheme in PORTS and bool(url.host) and not url.user and not url.password and bool(url.port)
        )
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgument("the URL of an http node must be http:// or https:// with a host and without a user")
    return url


def _host(url: URL) -> str:
    return str(url.raw_host).lower().rstrip(".")  # As it is resolved: of a name with other letters than ASCII's, its xn-- form.


def _is_number(host: str) -> bool:
    """Whether a host is an address and not a name, in any of the ways in which one can be written."""
    return ":" in host or host.rpartition(".")[2][:1].isdigit()


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if _FORBIDDEN_IN_HEADERS.search(value):
            raise InvalidArgument(f"the header {name!r} would have a line break or another control character in it")


def _charset(response: aiohttp.ClientResponse) -> str:
    """The answer's encoding, if it is one of texts: Python has others by the same names, some of which take quadratic time."""
    try:
        name = codecs.lookup(response.charset or "utf-8").name
    except LookupError:
        return "utf-8"
    return name if _TEXT_ENCODINGS.fullmatch(name) else "utf-8"


def _unavailable(url: URL, what: str) -> BackendUnavailable:
    return BackendUnavailable(f"the host {url.host!r} {what}", metadata={"host": str(url.host)})
