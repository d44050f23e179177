"""A link over a real socket: an HTTP front at one end, our client at the other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock.dispatcher import Dispatcher
from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    FlowNotFound,
    InvalidArgument,
    MessageTooLarge,
    RouteNotFound,
    Unavailable,
)
from penstock.flow.v1 import flow_pb2, flow_pb2_grpc
from penstock.http_front import HttpFront, listen
from penstock.interceptors import Admission, Deadline, ErrorBoundary
from penstock.link import frames
from penstock.link.client import Link, LinkRefused, connect
from penstock.settings import ServiceSettings

SERVICE = "penstock.flow.v1.RunService"
RUN, STREAM = f"/{SERVICE}/RunFlow", f"/{SERVICE}/StreamFlow"


class Scripted(flow_pb2_grpc.RunServiceServicer):
    """Answers with what a test put in: coroutine functions of the request and the context."""

    def __init__(self) -> None:
        self.answer = self._say_hello
        self.messages = 3
        self.sent = 0
        self.cancelled = asyncio.Event()

    async def _say_hello(self, request, context):
        return flow_pb2.RunFlowResponse(trace_id=f"{request.name} {context.metadata().get('x-told', '')}".strip())

    async def RunFlow(self, request, context):
        try:
            return await self.answer(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def StreamFlow(self, request, context):
        try:
            for number in range(self.messages):
                if request.name == "flows/slow":
                    await asyncio.sleep(30)
                self.sent = number + 1
                yield flow_pb2.StreamFlowResponse(token=flow_pb2.StreamFlowResponse.Token(node_id="n", text=str(number)))
            if request.name == "flows/broken":
                raise FlowNotFound("gone")
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise


class Serving:
    def __init__(self, **settings):
        self.servicer = Scripted()
        self.admission = Admission(100)
        self.dispatcher = Dispatcher((SERVICE,), (ErrorBoundary(), self.admission, Deadline()))
        flow_pb2_grpc.add_RunServiceServicer_to_server(self.servicer, self.dispatcher)
        self.dispatcher.ready = True
        given = ServiceSettings(drain_grace_s=5, message_bytes_max=100_000, **settings)
        self.front = HttpFront(
            listen("127.0.0.1:0"), type("S", (), {"name": "test", "rpc_services": (SERVICE,)})(), given, self.dispatcher
        )

    async def link(self, **more) -> Link:
        host, _, port = self.front.address.rpartition(":")
        return await connect(host, int(port), message_bytes_max=more.get("message_bytes_max", 100_000))


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    served = Serving()
    async with served.front.serving():
        yield served


@pytest.fixture
async def link(serving: Serving) -> AsyncIterator[Link]:
    made = await serving.link()
    yield made
    await made.close()


def request(name: str = "flows/a") -> bytes:
    return flow_pb2.RunFlowRequest(name=name).SerializeToString()


async def run(link: Link, name: str = "flows/a", seconds: float = 5.0, **metadata: str) -> str:
    told = {key.replace("_", "-"): value for key, value in metadata.items()}
    return flow_pb2.RunFlowResponse.FromString(await link.unary(RUN, request(name), told, seconds)).trace_id


def texts(messages: list[bytes]) -> list[str]:
    return [flow_pb2.StreamFlowResponse.FromString(each).token.text for each in messages]


async def test_calls_share_a_connection_and_each_gets_its_own_answer(link: Link) -> None:
    names = [f"flows/{number}" for number in range(50)]
    assert await asyncio.gather(*(run(link, name, x_told="it") for name in names)) == [f"{name} it" for name in names]


async def test_a_stream_comes_in_order_and_ends(link: Link, serving: Serving) -> None:
    serving.servicer.messages = 500
    stream = link.stream(STREAM, request(), {}, 5.0)
    assert texts([message async for message in stream]) == [str(number) for number in range(500)]


async def test_a_slow_reader_holds_back_its_own_stream_and_no_other_call(link: Link, serving: Serving) -> None:
    serving.servicer.messages = 500
    stream = link.stream(STREAM, request(), {}, 5.0)
    first = await anext(stream)
    await asyncio.sleep(0.1)
    assert serving.servicer.sent <= frames.WINDOW + 1
    assert await run(link) == "flows/a"
    assert texts([first, *[message async for message in stream]]) == [str(number) for number in range(500)]


async def test_errors_come_through_with_their_class_and_facts(link: Link, serving: Serving) -> None:
    async def refuse(request, context):
        raise InvalidArgument("no", metadata={"field": "x"})

    serving.servicer.answer = refuse
    with pytest.raises(InvalidArgument, match="no") as failed:
        await run(link)
    assert failed.value.metadata["field"] == "x"
    stream = link.stream(STREAM, request("flows/broken"), {}, 5.0)
    read = []
    with pytest.raises(FlowNotFound):
        async for message in stream:
            read.append(message)
    assert texts(read) == ["0", "1", "2"], "what came before the failure is read first"


async def test_what_is_not_ours_is_internal_and_says_nothing(link: Link, serving: Serving) -> None:
    async def fail(request, context):
        raise ZeroDivisionError("secret")

    serving.servicer.answer = fail
    with pytest.raises(Exception, match="internal error"):
        await run(link)


async def test_unknown_methods_bad_messages_and_long_ones_are_refused_and_the_link_lives_on(link: Link) -> None:
    with pytest.raises(RouteNotFound):
        await link.unary("/penstock.flow.v1.RunService/Nothing", b"", {}, 5.0)
    with pytest.raises(InvalidArgument, match="not the message"):
        await link.unary(RUN, b"\xff\xff", {}, 5.0)
    with pytest.raises(MessageTooLarge):
        await link.unary(RUN, b"x" * 100_001, {}, 5.0)
    assert await run(link) == "flows/a"


async def test_the_deadline_is_told_to_the_server_and_kept_here(link: Link, serving: Serving) -> None:
    told: list[float] = []

    async def wait(request, context):
        told.append(context.time_remaining())
        await asyncio.sleep(30)

    serving.servicer.answer = wait
    with pytest.raises(DeadlineExceeded):
        await run(link, seconds=0.2)
    assert 0 < told[0] <= 0.2
    await asyncio.wait_for(serving.servicer.cancelled.wait(), 5)
    with pytest.raises(DeadlineExceeded):
        await anext(link.stream(STREAM, request("flows/slow"), {}, 0.2))


@pytest.mark.parametrize("streams", [False, True])
async def test_whoever_leaves_a_call_ends_it_at_the_server(link: Link, serving: Serving, streams: bool) -> None:
    async def wait(request, context):
        await asyncio.sleep(30)

    serving.servicer.answer = wait
    if streams:
        stream = link.stream(STREAM, request("flows/slow"), {}, 5.0)
        waiting = asyncio.create_task(anext(stream))
    else:
        waiting = asyncio.create_task(run(link))
    await asyncio.sleep(0.05)
    assert serving.admission.in_flight == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if streams:
        stream.cancel()
    await asyncio.wait_for(serving.servicer.cancelled.wait(), 5)
    await asyncio.sleep(0.01)
    assert serving.admission.in_flight == 0


async def test_a_lost_connection_ends_its_calls_at_both_ends(serving: Serving) -> None:
    async def wait(request, context):
        await asyncio.sleep(30)

    serving.servicer.answer = wait
    link = await serving.link()
    calls = [asyncio.create_task(run(link)), asyncio.ensure_future(anext(link.stream(STREAM, request("flows/slow"), {}, 5.0)))]
    await asyncio.sleep(0.05)
    link._transport.abort()
    for failed in await asyncio.gather(*calls, return_exceptions=True):
        assert type(failed) is Unavailable
    await asyncio.wait_for(serving.servicer.cancelled.wait(), 5)
    assert not link.usable
    with pytest.raises(Unavailable):
        await run(link)


async def test_a_service_that_drains_finishes_what_it_has_begun_and_takes_nothing_new(serving: Serving) -> None:
    let_go = asyncio.Event()

    async def wait(request, context):
        await let_go.wait()
        return flow_pb2.RunFlowResponse(trace_id="done")

    serving.servicer.answer = wait
    link = await serving.link()
    begun = asyncio.create_task(run(link))
    await asyncio.sleep(0.05)
    draining = asyncio.create_task(serving.front.drain())
    await asyncio.wait_for(link.gone(), 5)
    assert not link.usable
    let_go.set()
    assert await begun == "done"
    await asyncio.wait_for(draining, 5)


async def test_a_call_that_is_cancelled_inside_the_service_says_so(link: Link, serving: Serving) -> None:
    async def cancel(request, context):
        raise asyncio.CancelledError

    serving.servicer.answer = cancel
    with pytest.raises(Cancelled):
        await run(link)


async def test_bytes_that_are_no_frames_close_the_link(serving: Serving) -> None:
    link = await serving.link()
    link._transport.write(b"\xff" * 100)
    await asyncio.wait_for(link.gone(), 5)


async def test_who_takes_no_links_is_told_apart() -> None:
    async def answer(reader, writer):
        await reader.read(1000)
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with server:
        with pytest.raises(LinkRefused, match="404"):
            await connect(*address, message_bytes_max=1000)
        await asyncio.sleep(0.05)
    with pytest.raises(LinkRefused):
        await connect(*address, message_bytes_max=1000)
