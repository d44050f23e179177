"""The app under a real uvicorn, on a real socket, as a service runs it."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn

from penstock import errors
from penstock.flow.v1 import flow_pb2

TOKEN = {"token": {"node_id": "a", "text": "Oslo"}}


@pytest.fixture
async def server(transcoder):
    """The address of an app that is served; its body limit is 100,000 bytes."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(transcoder(), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    while not running.started:
        await asyncio.sleep(0.01)
    yield listening.getsockname()
    running.should_exit = running.force_exit = True
    await task


@asynccontextmanager
async def connected(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def request(method, path, body=b"", *extra):
    head = [f"{method} {path} HTTP/1.1", "host: test", f"content-length: {len(body)}", *extra, "", ""]
    return "\r\n".join(head).encode() + body


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return int(head[0].split()[1]), dict(line.lower().split(": ", 1) for line in head[1:] if line)


async def read_answer(reader):
    status, headers = await read_head(reader)
    return status, headers, await reader.readexactly(int(headers["content-length"]))


async def read_chunk(reader):
    """One chunk of a chunked body; empty at the end."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def test_calls_share_a_connection(server, dispatcher):
    dispatcher.answers["RunFlow"] = lambda request: flow_pb2.RunFlowResponse(content_hash=request.name)
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        for name in ("a", "b"):
            writer.write(request("POST", f"/v1/flows/{name}:run", b"{}", "content-type: application/json"))
            status, headers, body = await read_answer(reader)
            assert (status, headers["content-type"]) == (200, "application/json")
            assert json.loads(body)["content_hash"] == f"flows/{name}"


async def test_a_percent_encoded_path_comes_through_the_server(server, dispatcher):
    dispatcher.answers["GetFlow"] = flow_pb2.GetFlowResponse()
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(request("GET", "/v1/flows/a%2Fb%20c"))
        assert (await read_answer(reader))[0] == 200
    assert dispatcher.request.name == "flows/a%2Fb c"


async def test_head_is_answered_without_a_body(server):
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(request("HEAD", "/healthz"))
        status, headers = await read_head(reader)
        assert (status, headers["content-length"]) == (200, "18")
        writer.write(request("GET", "/healthz"))  # The next answer follows at once: no body came before it.
        assert (await read_answer(reader))[2] == b'{"status":"alive"}'


async def test_a_body_over_the_limit_is_answered_while_it_is_still_sent(server):
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(b"POST /v1/flows/a:run HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
        status, _, body = await read_answer(reader)
    assert (status, json.loads(body)["error"]["details"][0]["reason"]) == (413, "MESSAGE_TOO_LARGE")


async def test_a_chunked_body_over_the_limit_is_refused(server):
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(b"POST /v1/flows/a:run HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"c350\r\n" + b" " * 50_000 + b"\r\n")
        assert (await read_answer(reader))[0] == 413


async def test_a_failure_in_the_middle_of_a_stream_reaches_an_http11_client(server, dispatcher):
    async def failing(_request):
        yield flow_pb2.StreamFlowResponse(**TOKEN)
        await asyncio.sleep(0.01)
        raise errors.EngineFailed("the engine died")

    dispatcher.answers["StreamFlow"] = failing
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(request("POST", "/v1/flows/a:stream", b"{}"))
        status, headers = await read_head(reader)
        chunks = []
        while chunk := await read_chunk(reader):
            chunks.append(chunk.decode())
        # The stream has ended as HTTP ends one, so the connection lives.
        writer.write(request("GET", "/healthz"))
        assert (await read_answer(reader))[0] == 200
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert chunks[0] == f"event: token\ndata: {json.dumps(TOKEN, separators=(',', ':'))}\n\n"
    assert chunks[1].startswith("event: error\ndata: ")
    assert json.loads(chunks[1].partition("data: ")[2])["error"]["message"] == "the engine died"


async def test_each_message_is_sent_as_it_is_made(server, dispatcher):
    gate = asyncio.Event()

    async def gated(_request):
        yield flow_pb2.StreamFlowResponse(**TOKEN)
        await gate.wait()

    dispatcher.answers["StreamFlow"] = gated
    async with asyncio.timeout(10), connected(server) as (reader, writer):
        writer.write(request("POST", "/v1/flows/a:stream", b"{}"))
        await read_head(reader)
        assert b"event: token" in await read_chunk(reader)
        gate.set()
        assert await read_chunk(reader) == b"event: done\ndata: {}\n\n"


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "while it sends"])
async def test_a_client_that_leaves_stops_the_stream(server, dispatcher, waits):
    ended = asyncio.Event()

    async def endless(_request):
        try:
            while True:
                yield flow_pb2.StreamFlowResponse(token={"text": "x" * 1000})
                await asyncio.sleep(60 if waits else 0)
        finally:
            ended.set()

    dispatcher.answers["StreamFlow"] = endless
    async with asyncio.timeout(10):
        async with connected(server) as (reader, writer):
            writer.write(request("POST", "/v1/flows/a:stream", b"{}"))
            await read_head(reader)
            await read_chunk(reader)
        await ended.wait()


async def test_a_client_that_leaves_stops_a_unary_call(server, dispatcher):
    started, ended = asyncio.Event(), asyncio.Event()

    async def run(_request):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    dispatcher.answers["RunFlow"] = run
    async with asyncio.timeout(10):
        async with connected(server) as (_, writer):
            writer.write(request("POST", "/v1/flows/a:run", b"{}"))
            await started.wait()
        await ended.wait()


async def test_a_client_that_stops_reading_stops_the_stream_from_being_made(server, dispatcher):
    made = []

    async def endless(_request):
        while True:
            made.append(1)
            yield flow_pb2.StreamFlowResponse(token={"text": "x" * 50_000})

    dispatcher.answers["StreamFlow"] = endless
    async with asyncio.timeout(20), connected(server) as (reader, writer):
        writer.write(request("POST", "/v1/flows/a:stream", b"{}"))
        await read_head(reader)
        before = -1
        while before != len(made):  # Until the buffers between the two are full.
            before = len(made)
            await asyncio.sleep(0.3)
        assert len(made) < 2000
