"""Requests against real servers on this machine: what goes out, what comes back, and what is never connected to."""

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.backends import WebRequest
from gateway.web.client import HttpWeb, open_client
from gateway.web.hosts import parse_hosts
from gateway.web.limits import WebLimits
from gateway.web.opening import open_web
from gateway.web.secret_store import Secrets
from penstock.errors import (
    BackendUnavailable,
    FlowMisconfigured,
    InvalidArgument,
    MessageTooLarge,
    PenstockError,
    PermissionDenied,
)

LIMITS = WebLimits(timeout_s=1.0, answer_bytes_max=10_000)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeResolver(AbstractResolver):
    """Says of each name the addresses that a test gives it: at each question the next, the last one again and again."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): each for name, each in answers.items()}
        self.questions: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.questions.append(host)
        answers = self.answers.get(host)
        if answers is None:
            raise socket.gaierror("no such name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host, host=each, port=port, family=socket.AF_INET6 if ":" in each else socket.AF_INET, proto=0, flags=0
            )
            for each in addresses
        ]

    async def close(self) -> None:
        pass


class Server:
    """A server that answers as `handler` does and keeps what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.handler: Handler | None = None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.read())
        return await self.handler(request) if self.handler else web.json_response({"path": request.raw_path})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


def opened(
    hosts: str, resolver: AbstractResolver | None = None, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[HttpWeb]:
    return open_client(parse_hosts(hosts), Secrets(environment or {}), LIMITS, lambda: resolver or FakeResolver())


@asynccontextmanager
async def talking(server: Server) -> AsyncIterator[Callable[..., Any]]:
    """A client that may ask this server, by its address."""
    async with opened(f"http://127.0.0.1:{server.port}!") as client:

        async def ask(path: str = "/", method: str = "GET", **more: Any) -> Any:
            return await client.send(WebRequest(method=method, url=f"http://127.0.0.1:{server.port}{path}", **more))

        yield ask


async def test_a_request_goes_out_as_it_is_and_the_answer_comes_back_whole(server: Server) -> None:
    async with talking(server) as ask:
        answer = await ask("/a%2Fb?q=%C3%A9%26x", "POST", headers={"x-key": "k"}, body=b'{"a":1}')
    assert (answer.status, answer.text) == (200, '{"path": "/a%2Fb?q=%C3%A9%26x"}')
    assert answer.headers["content-type"].startswith("application/json")
    request = server.seen[0]
    assert (request.method, server.bodies) == ("POST", [b'{"a":1}'])
    assert (request.headers["x-key"], request.headers["user-agent"]) == ("k", "penstock")
    assert request.headers["accept-encoding"] == "identity"


async def test_any_status_is_an_answer_and_no_redirection_is_followed(server: Server) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": "http://169.254.169.254/latest/meta-data"}, text="away")

    server.handler = redirect
    async with talking(server) as ask:
        answer = await ask()
    assert (answer.status, answer.text, answer.headers["location"]) == (302, "away", "http://169.254.169.254/latest/meta-data")
    assert len(server.seen) == 1


async def test_no_cookie_is_kept_and_no_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cookie(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"set-cookie": "session=1"})

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.handler = cookie
    async with talking(server) as ask:
        await ask()
        await ask()
    assert "cookie" not in server.seen[1].headers


async def test_an_answer_that_is_too_large_is_left_as_soon_as_that_is_known(server: Server) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            sent += 65_536

    server.handler = endless
    async with talking(server) as ask:
        with pytest.raises(MessageTooLarge, match="more than 10000 bytes"):
            await ask()
    assert sent < 50_000_000


async def test_a_compressed_answer_is_not_unpacked(server: Server) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b"0" * 5_000_000), headers={"content-encoding": "gzip"})

    server.handler = bomb
    async with talking(server) as ask:
        with pytest.raises(BackendUnavailable, match="compressed"):
            await ask()


@pytest.mark.parametrize("after_headers", [False, True])
async def test_an_answer_that_is_too_slow_is_given_up(server: Server, after_headers: bool) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if after_headers:
            await response.prepare(request)
        while True:  # A byte now and then: it is the whole that has its time.
            await asyncio.sleep(0.1)
            if after_headers:
                await response.write(b".")

    server.handler = slow
    async with talking(server) as ask:
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"did not answer within 0\.3 s"):
            await ask(timeout_s=0.3)
        with pytest.raises(BackendUnavailable, match="did not answer within 1 s"):
            await ask(timeout_s=60.0)  # The gateway's own is the most.
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", b"caf\xe9", "café"),
        ("text/plain; charset=utf-16", "é".encode("utf-16"), "é"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=punycode", b"abc", "abc"),
        ("text/plain; charset=zlib", b"abc", "abc"),
        ("application/octet-stream", b"\xff\xfea", "\ufffd\ufffda"),
    ],
)
async def test_a_body_is_read_as_what_it_says_it_is(server: Server, content_type: str, body: bytes, text: str) -> None:
    async def say(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"content-type": content_type})

    server.handler = say
    async with talking(server) as ask:
        assert (await ask()).text == text


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "no_http", "short", "many_headers", "no_chunk", "long_header"],
)
async def test_a_server_that_speaks_no_http_is_unavailable(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}!") as client:
            with pytest.raises(BackendUnavailable):
                await client.send(WebRequest(method="GET", url=f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example.com/", "https://api.example.com/", "http://api.example.com:81/", "http://127.0.0.1/",
        "http://api.example.com.evil.org/", "http://evil.org/?x=api.example.com", "http://localhost/", "http://[::1]/",
        "http://2130706433/", "http://0x7f.1/", "http://api.example.com%2eevil.org/",
    ],
)  # fmt: skip
async def test_a_host_that_is_not_on_the_list_is_never_even_looked_up(url: str) -> None:
    resolver = FakeResolver()
    async with opened("http://api.example.com", resolver) as client:
        with pytest.raises((PermissionDenied, InvalidArgument)):
            await client.send(WebRequest(method="GET", url=url))
    assert resolver.questions == []


@pytest.mark.parametrize(
    "url",
    ["ftp://api.example.com/", "file:///etc/passwd", "//api.example.com", "http://user:pw@api.example.com/", "http:///x", "",
     "http://api.example.com:0/", "http://api.example.com:99999/", "http://api.example.com/a b", "http://api.example.com/é",
     "http://api.example.com/a\r\nx: y"],
)  # fmt: skip
async def test_what_is_no_url_of_a_host_is_refused(url: str) -> None:
    async with opened("http://api.example.com") as client:
        with pytest.raises((InvalidArgument, PermissionDenied)):
            await client.send(WebRequest(method="GET", url=url))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["8.8.8.8", "10.0.0.1"],
        ["::1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"],
    ],
)
async def test_a_name_that_has_an_address_inside_is_not_connected_to(server: Server, addresses: list[str]) -> None:
    resolver = FakeResolver(api_example_com=[addresses])
    async with opened(f"http://api.example.com:{server.port}", resolver) as client:
        with pytest.raises(PermissionDenied, match="no address of the public internet") as refused:
            await client.send(WebRequest(method="GET", url=f"http://api.example.com:{server.port}/"))
    assert "end its entry" in refused.value.message
    assert server.seen == []


async def test_a_connection_goes_to_the_address_that_was_checked_and_its_name_is_looked_up_once(server: Server) -> None:
    resolver = FakeResolver(api_example_com=[["127.0.0.1"], ["127.0.0.2"]])
    url = f"http://api.example.com:{server.port}/"
    async with opened(f"http://api.example.com:{server.port}!", resolver) as client:
        assert (await client.send(WebRequest(method="GET", url=url))).status == 200
    assert resolver.questions == ["api.example.com"]
    assert server.seen[0].headers["host"] == f"api.example.com:{server.port}"


async def test_a_name_that_is_rebound_is_checked_again_by_the_next_connection(server: Server) -> None:
    resolver = FakeResolver(api_example_com=[["127.0.0.1"], ["169.254.169.254"]])
    url = f"http://api.example.com:{server.port}/"
    async with opened(f"http://api.example.com:{server.port}", resolver) as client:
        for address in ("127.0.0.1", "169.254.169.254"):
            with pytest.raises(PermissionDenied, match=f"is at {address}"):
                await client.send(WebRequest(method="GET", url=url))
    assert server.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_an_address_on_the_list_needs_the_mark_as_well(host: str) -> None:
    async with opened(f"http://{host}:1") as client:
        with pytest.raises(PermissionDenied, match="no address of the public internet"):
            await client.send(WebRequest(method="GET", url=f"http://{host}:1/"))
    async with opened(f"http://{host}:1!") as client:
        with pytest.raises(BackendUnavailable):
            await client.send(WebRequest(method="GET", url=f"http://{host}:1/", timeout_s=0.5))


async def test_a_name_that_there_is_not_is_unavailable() -> None:
    async with opened("*.example.com") as client:
        for name in ("nowhere", "a" * 64, "xn--0"):
            with pytest.raises(PenstockError) as refused:
                await client.send(WebRequest(method="GET", url=f"https://{name}.example.com/"))
            assert isinstance(refused.value, BackendUnavailable | InvalidArgument)


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b", "\x7f"])
async def test_a_header_can_not_begin_another_one(value: str) -> None:
    async with opened("http://api.example.com") as client:
        with pytest.raises(InvalidArgument, match="'x-key' would have a line break"):
            await client.send(WebRequest(method="GET", url="http://api.example.com/", headers={"x-key": value}))


async def test_secrets_are_variables_of_the_environment_with_their_own_beginning() -> None:
    environment = {"PENSTOCK_SECRET_TOKEN": "t0p", "PENSTOCK_SECRET_EMPTY": "", "HOME": "/root", "TOKEN": "x"}
    for hosts in ("", "api.example.com"):
        async with open_web(parse_hosts(hosts), environment, LIMITS) as client:
            assert client.secret("TOKEN") == "t0p"
            for name in ("HOME", "EMPTY", "OTHER"):
                with pytest.raises(FlowMisconfigured, match=f"set PENSTOCK_SECRET_{name}"):
                    client.secret(name)


async def test_where_no_host_is_allowed_none_is_asked() -> None:
    async with open_web((), {}, LIMITS) as client:
        with pytest.raises(PermissionDenied, match="PENSTOCK_GATEWAY_HTTP_HOSTS allows no host"):
            await client.send(WebRequest(method="GET", url="https://api.example.com/"))


def test_a_gateway_imports_neither_client_before_it_needs_one() -> None:
    loaded = "import sys, gateway.__main__; print(sorted({'aiohttp', 'asyncpg'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, env=os.environ)
    assert told.stdout.strip() == "[]"
