"""Methods that take a stream of messages, over a real server and channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.channel import rpc_errors
from penstock.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    Internal,
    MalformedRequest,
    MessageTooLarge,
    NotReady,
    Overloaded,
)
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.settings import ServiceSettings
from tests.penstock.served import SERVICE, Served, until


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with Served(ServiceSettings(concurrency_max=2, message_bytes_max=4096, deadline_s=5.0)) as started:
        started.servicer.taking = counting
        yield started


async def counting(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
    return pb.IngestStreamResponse(document_count=len([request async for request in requests]))


async def messages(count: int, text: str = "") -> AsyncIterator[pb.IngestStreamRequest]:
    for number in range(count):
        yield pb.IngestStreamRequest(collection="collections/c", documents=[pb.Document(id=str(number), text=text)])


async def for_ever() -> AsyncIterator[pb.IngestStreamRequest]:
    yield pb.IngestStreamRequest()
    await asyncio.Event().wait()


async def test_a_stream_of_any_length_has_one_answer_and_both_spans_are_ok(served: Served) -> None:
    for count in (0, 1, 500):
        assert (await served.stub.IngestStream(messages(count), timeout=5)).document_count == count
    spans = await served.ended_spans(6)
    assert spans["SERVER"].parent.span_id == spans["CLIENT"].context.span_id
    assert {spans[kind].attributes["rpc.response.status_code"] for kind in ("SERVER", "CLIENT")} == {"OK"}


async def test_the_servicer_holds_back_a_client_that_is_faster() -> None:
    go_on, sent = asyncio.Event(), 0

    async def slow(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        await anext(aiter(requests))
        await go_on.wait()
        return await counting(requests)

    async def many() -> AsyncIterator[pb.IngestStreamRequest]:
        nonlocal sent
        async for message in messages(10_000, text="x" * 4000):
            sent += 1
            yield message

    async with Served(ServiceSettings(message_bytes_max=4096, deadline_s=60.0)) as served:
        served.servicer.taking = slow
        call = asyncio.ensure_future(served.stub.IngestStream(many(), timeout=60))
        await asyncio.sleep(0.5)
        held_back_at = sent
        go_on.set()
        assert (await call).document_count == 9999
    assert held_back_at < 5000  # gRPC's own windows, some MB, are full by then.


async def test_a_message_over_the_limit_is_refused_with_a_reason_and_those_before_it_were_read(served: Served) -> None:
    read = []

    async def remembering(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        async for request in requests:
            read.append(request)
        return pb.IngestStreamResponse()

    async def one_too_large() -> AsyncIterator[pb.IngestStreamRequest]:
        async for message in messages(2):
            yield message
        yield pb.IngestStreamRequest(documents=[pb.Document(text="x" * 5000)])

    served.servicer.taking = remembering
    with pytest.raises(MessageTooLarge) as caught, rpc_errors("retrieval"):
        await served.stub.IngestStream(one_too_large(), timeout=5)
    assert caught.value.metadata["bytes_max"] == "4096"
    assert len(read) == 2


async def test_bytes_that_are_no_message_are_refused_with_a_reason(served: Served) -> None:
    call = served.channel.stream_unary(f"/{SERVICE}/IngestStream")
    with pytest.raises(MalformedRequest), rpc_errors("retrieval"):
        await call(iter([b"\xff\xff\xff"]), timeout=5)


async def test_an_error_in_the_middle_of_a_stream_reaches_the_client_as_the_same_class(served: Served) -> None:
    async def refuse(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        await anext(aiter(requests))
        raise CollectionNotFound("no collection 'c'", metadata={"collection": "c"})

    served.servicer.taking = refuse
    with pytest.raises(CollectionNotFound, match="no collection 'c'"), rpc_errors("retrieval"):
        await served.stub.IngestStream(for_ever(), timeout=5)


async def test_an_unknown_exception_is_an_internal_error(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def break_down(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        raise ZeroDivisionError("password is hunter2")

    served.servicer.taking = break_down
    with pytest.raises(Internal) as caught, rpc_errors("retrieval"):
        await served.stub.IngestStream(for_ever(), timeout=5)
    assert "hunter2" not in caught.value.message
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("read_all", [True, False])
async def test_a_client_that_leaves_cancels_the_servicer_and_frees_its_place(served: Served, read_all: bool) -> None:
    started, ended = asyncio.Event(), []

    async def hold(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        try:
            await anext(aiter(requests))
            started.set()
            if not read_all:
                await asyncio.Event().wait()
            async for _ in requests:
                pass
            ended.append("took it for a whole stream")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return pb.IngestStreamResponse()

    served.servicer.taking = hold
    call = served.stub.IngestStream(for_ever(), timeout=5)
    await started.wait()
    call.cancel()
    await until(lambda: bool(ended))
    assert ended == ["cancelled"]
    assert served.admission.in_flight == 0
    spans = await served.ended_spans(2)
    assert {spans[kind].attributes["rpc.response.status_code"] for kind in ("SERVER", "CLIENT")} == {"CANCELLED"}


async def test_a_lost_connection_cancels_the_servicer(served: Served) -> None:
    started, ended = asyncio.Event(), []

    async def hold(requests: AsyncIterator[Any]) -> pb.IngestStreamResponse:
        try:
            async for _ in requests:
                started.set()
            ended.append("took it for a whole stream")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return pb.IngestStreamResponse()

    served.servicer.taking = hold
    call = asyncio.ensure_future(served.stub.IngestStream(for_ever(), timeout=5))
    await started.wait()
    await served.channel.close(0)
    await until(lambda: bool(ended))
    assert ended == ["cancelled"]
    await asyncio.wait([call])


async def test_the_deadline_ends_a_stream_whose_client_says_nothing(served: Served) -> None:
    with pytest.raises(DeadlineExceeded), rpc_errors("retrieval"):
        await served.stub.IngestStream(for_ever(), timeout=0.3)
    await until(lambda: served.admission.in_flight == 0)


async def test_streams_over_the_concurrency_limit_are_refused_at_once(served: Served) -> None:
    held = [served.stub.IngestStream(for_ever(), timeout=5) for _ in range(2)]
    await until(lambda: served.admission.in_flight == 2)
    with pytest.raises(Overloaded), rpc_errors("retrieval"):
        await served.stub.IngestStream(messages(1), timeout=5)
    for call in held:
        call.cancel()


async def test_a_service_that_leaves_refuses_a_stream_as_not_ready(served: Served) -> None:
    served.dispatcher.ready = False
    with pytest.raises(NotReady), rpc_errors("retrieval"):
        await served.stub.IngestStream(messages(1), timeout=5)
