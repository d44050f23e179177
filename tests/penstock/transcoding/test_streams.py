import asyncio
import contextlib
import json

import pytest

from penstock import errors
from penstock.flow.v1 import flow_pb2
from penstock.generation.v1 import generation_pb2

STARTED = {"node_started": {"node_id": "a", "node_type": "prompt"}}
TOKEN = {"token": {"node_id": "a", "text": "Oslo\n"}}
DONE = {"done": {"content_hash": "h"}}


SCOPE = {"type": "http", "method": "POST", "path": "/v1/flows/a:stream", "query_string": b"", "headers": []}


def events(*fields, then=None):
    async def stream(_request):
        for each in fields:
            yield flow_pb2.StreamFlowResponse(**each)
        if then:
            raise then

    return stream


async def stream_flow(client, **keywords):
    return await client.call("POST", "/v1/flows/a:stream", {}, **keywords)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_stream_is_events_named_by_what_happened(client, dispatcher):
    dispatcher.answers["StreamFlow"] = events(STARTED, TOKEN, DONE)
    answer = await stream_flow(client)
    assert answer.status == 200
    assert answer.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    assert [name for name, _ in answer.sse] == ["node_started", "token", "done"]
    assert answer.sse[1] == ("token", TOKEN)
    assert answer.sse[2][1]["done"]["content_hash"] == "h"
    assert answer.complete


async def test_a_stream_that_ends_well_without_done_is_given_one(client, library_client, dispatcher, library_message):
    dispatcher.answers["StreamFlow"] = events(TOKEN)
    assert (await stream_flow(client)).sse == [("token", TOKEN), ("done", {})]
    dispatcher.answers["StreamFlow"] = events()
    assert (await stream_flow(client)).sse == [("done", {})]

    async def books(_request):
        yield library_message("Book")(name="b")

    dispatcher.answers["WatchBooks"] = books
    answer = await library_client.call("GET", "/v1/books:watch?words=x")
    assert [name for name, _ in answer.sse] == ["message", "done"]


@pytest.mark.parametrize("error", [errors.Overloaded("full", retry_after_s=1.0), errors.FlowNotFound("no such flow")])
async def test_a_failure_before_the_first_message_is_an_ordinary_error(client, dispatcher, error):
    dispatcher.answers["StreamFlow"] = events(then=error)
    answer = await stream_flow(client)
    assert (answer.status, answer.reason) == (error.code.http_status, error.reason)
    dispatcher.answers["StreamFlow"] = error
    assert (await stream_flow(client)).status == error.code.http_status


async def test_a_stream_that_is_cancelled_inside_the_service_says_so(client, dispatcher):
    async def cancelled(_request):
        yield flow_pb2.StreamFlowResponse(**TOKEN)
        raise asyncio.CancelledError

    dispatcher.answers["StreamFlow"] = cancelled
    answer = await stream_flow(client)
    assert answer.sse[-1][1]["error"]["details"][0]["reason"] == "CANCELLED"
    assert answer.complete


async def test_head_of_a_stream_does_not_start_it(library_client, dispatcher):
    answer = await library_client.call("HEAD", "/v1/books:watch")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")
    assert dispatcher.calls == []


async def test_a_wrong_request_of_a_stream_is_an_ordinary_error(client):
    answer = await client.call("POST", "/v1/flows/a:stream", b"{")
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")


async def test_a_failure_after_the_first_message_is_the_last_event(client, dispatcher):
    dispatcher.answers["StreamFlow"] = events(TOKEN, then=errors.EngineFailed("the engine died", metadata={"node": "a"}))
    answer = await stream_flow(client)
    assert [name for name, _ in answer.sse] == ["token", "error"]
    failure = answer.sse[-1][1]["error"]
    assert (failure["code"], failure["message"]) == (14, "the engine died")
    assert failure["details"][0]["reason"] == "ENGINE_FAILED"
    assert failure["details"][0]["metadata"] == {"node": "a"}
    assert answer.complete


async def test_an_unknown_exception_in_a_stream_is_internal(client, dispatcher, caplog):
    dispatcher.answers["StreamFlow"] = events(TOKEN, then=ZeroDivisionError("secret"))
    answer = await stream_flow(client)
    assert answer.sse[-1][1]["error"]["message"] == errors.INTERNAL_MESSAGE
    assert b"secret" not in answer.body
    assert "ZeroDivisionError: secret" in caplog.text


async def test_a_failure_that_the_runtime_put_into_the_stream_is_told_once(client, dispatcher):
    dispatcher.answers["StreamFlow"] = events(TOKEN, {"error": {"code": 14, "message": "x"}}, then=errors.Unavailable("x"))
    assert [name for name, _ in (await stream_flow(client)).sse] == ["token", "error"]
    dispatcher.answers["StreamFlow"] = events(TOKEN, {"error": {"code": 14, "message": "x"}})
    assert [name for name, _ in (await stream_flow(client)).sse] == ["token", "error"]


async def test_nothing_comes_after_the_end(client, dispatcher):
    dispatcher.answers["StreamFlow"] = events(DONE, then=errors.NotReady("leaving"))
    answer = await stream_flow(client)
    assert [name for name, _ in answer.sse] == ["done"]
    assert answer.complete


async def test_a_stream_whose_messages_have_no_error_field_fails_in_band_all_the_same(
    library_client, dispatcher, library_message
):
    async def books(_request):
        yield library_message("Book")(name="b")
        raise errors.NotReady("leaving")

    dispatcher.answers["WatchBooks"] = books
    answer = await library_client.call("GET", "/v1/books:watch")
    assert answer.sse[-1][0] == "error"
    assert answer.sse[-1][1]["error"]["message"] == "leaving"
    assert answer.sse[-1][1]["error"]["details"][0]["reason"] == "NOT_READY"


async def test_json_lines_are_given_to_who_asks_for_them(client, generation_client, dispatcher):
    dispatcher.answers["StreamGenerate"] = generated
    answer = await generation_client.call("POST", "/v1/models/default:stream", {}, headers={"accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [next(iter(line)) for line in lines] == ["delta", "done"]
    dispatcher.answers["StreamFlow"] = events(TOKEN, then=errors.NotReady("leaving"))
    both = await stream_flow(client, headers={"accept": "text/event-stream, application/x-ndjson;q=0.5"})
    assert both.headers["content-type"] == "text/event-stream"
    answer = await stream_flow(client, headers={"accept": "application/x-ndjson"})
    assert [next(iter(json.loads(line))) for line in answer.body.splitlines()] == ["token", "error"]


async def generated(_request):
    yield generation_pb2.StreamGenerateResponse(delta={"text": "Oslo", "token_count": 1})


async def test_an_idle_stream_has_heartbeats_and_the_first_carries_the_head(transcoder, connect, dispatcher):
    more = asyncio.Event()

    async def slow(_request):
        await more.wait()
        yield flow_pb2.StreamFlowResponse(**TOKEN)
        raise errors.NotReady("leaving")

    dispatcher.answers["StreamFlow"] = slow
    client = connect(transcoder(heartbeat_s=0.02))
    call = asyncio.create_task(stream_flow(client))
    await until(lambda: len(client.answer.events) >= 4)
    more.set()
    answer = await call
    assert answer.status == 200
    names = [name for name, _ in answer.sse]
    assert names[:2] == [":", ":"]
    assert names[-2:] == ["token", "error"]
    assert answer.body.startswith(b": heartbeat\n\n")


async def test_a_busy_stream_has_no_heartbeats(transcoder, connect, dispatcher):
    async def busy(_request):
        for _ in range(20):
            await asyncio.sleep(0.01)
            yield flow_pb2.StreamFlowResponse(**TOKEN)

    dispatcher.answers["StreamFlow"] = busy
    answer = await stream_flow(connect(transcoder(heartbeat_s=5.0)))
    assert ":" not in [name for name, _ in answer.sse]


class Watched:
    """A stream that tells how it ended."""

    def __init__(self, between_s=0.0):
        self.started = asyncio.Event()
        self.ended = []
        self._between_s = between_s

    async def __call__(self, _request):
        try:
            while True:
                yield flow_pb2.StreamFlowResponse(**TOKEN)
                self.started.set()
                await asyncio.sleep(self._between_s)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        except GeneratorExit:
            self.ended.append("closed")
            raise


async def test_a_stream_is_cancelled_where_it_waits_when_its_client_leaves(client, dispatcher):
    watched = dispatcher.answers["StreamFlow"] = Watched(between_s=60)
    call = asyncio.create_task(stream_flow(client))
    await watched.started.wait()
    client.left.set()
    await asyncio.wait_for(call, 5)
    assert watched.ended == ["cancelled"]


async def test_a_stream_is_closed_when_its_client_leaves_while_it_is_written_to(transcoder, dispatcher):
    """The generator stands at its yield, because sending waits for a client that does not read."""
    watched = dispatcher.answers["StreamFlow"] = Watched()
    blocked, left = asyncio.Event(), asyncio.Event()
    pending = [{"type": "http.request", "body": b"{}"}]

    async def receive():
        if pending:
            return pending.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(event):
        if event["type"] == "http.response.body":
            blocked.set()
            await asyncio.sleep(60)

    call = asyncio.create_task(transcoder()(SCOPE, receive, send))
    await blocked.wait()
    left.set()
    await asyncio.wait_for(call, 5)
    assert watched.ended == ["closed"]


async def test_a_stream_waits_for_a_client_that_reads_slowly(transcoder, dispatcher):
    made, taken = [], []

    async def fast(_request):
        for number in range(5):
            made.append(number)
            yield flow_pb2.StreamFlowResponse(**TOKEN)

    dispatcher.answers["StreamFlow"] = fast
    pending = [{"type": "http.request", "body": b"{}"}]

    async def receive():
        if not pending:
            await asyncio.sleep(60)
        return pending.pop()

    async def send(event):
        await asyncio.sleep(0.01)
        taken.append((len(made), event))

    await transcoder()(SCOPE, receive, send)
    bodies = [count for count, event in taken if event["type"] == "http.response.body"]
    assert bodies == [1, 2, 3, 4, 5, 5]


async def test_the_servers_own_cancellation_closes_the_stream(client, dispatcher):
    watched = dispatcher.answers["StreamFlow"] = Watched(between_s=60)
    call = asyncio.create_task(stream_flow(client))
    await watched.started.wait()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert watched.ended == ["cancelled"]


async def test_a_stream_is_closed_after_it_failed(client, dispatcher):
    closed = []

    class Failing:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise errors.NotReady("leaving")

        async def aclose(self):
            closed.append(True)

    dispatcher.answers["StreamFlow"] = Failing()
    assert (await stream_flow(client)).status == 503
    assert closed == [True]


async def test_no_task_is_left_behind_by_a_stream(client, dispatcher):
    dispatcher.answers["StreamFlow"] = events(TOKEN, DONE)
    before = asyncio.all_tasks()
    await stream_flow(client)
    await until(lambda: asyncio.all_tasks() <= before)
