import asyncio
import json
import logging

import pytest

from penstock import errors
from penstock.encoded import Encoded
from penstock.flow.v1 import flow_pb2
from penstock.retrieval.v1 import retrieval_pb2
from penstock.transcoding.app import URL_BYTES_MAX

SCOPE = {"type": "http", "method": "POST", "path": "/v1/flows/a:run", "query_string": b"", "headers": []}


def search_answer():
    return retrieval_pb2.SearchResponse(hits=[{"chunk": {"id": "c1", "text": "Oslo"}, "score": 0.7}])


async def test_a_unary_call_is_answered_with_the_message_as_json(client, dispatcher):
    dispatcher.answers["Search"] = search_answer()
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    chunk = {"id": "c1", "document_id": "", "text": "Oslo", "vector": "", "allowed_principals": []}
    empty = {"next_page_token": "", "partial": False, "missing_shards": []}
    assert answer.json == {"hits": [{"chunk": chunk, "score": 0.7}], **empty}


async def test_an_answer_that_is_bytes_already_is_read_and_written_as_json(client, dispatcher):
    dispatcher.answers["Search"] = Encoded(retrieval_pb2.SearchResponse, search_answer().SerializeToString())
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert answer.json["hits"][0]["chunk"]["text"] == "Oslo"


async def test_a_response_body_is_the_field_alone(client, library_client, dispatcher, library_message):
    dispatcher.answers["GetFlow"] = flow_pb2.GetFlowResponse(flow={"name": "flows/a", "document": "{}"})
    assert (await client.call("GET", "/v1/flows/a")).json["name"] == "flows/a"
    dispatcher.answers["ListTitles"] = library_message("FindBooksResponse")(titles=["a", "b"])
    assert (await library_client.call("GET", "/v1/titles")).json == ["a", "b"]


async def test_a_response_body_that_is_not_set_is_an_empty_message(client, dispatcher):
    dispatcher.answers["GetFlow"] = flow_pb2.GetFlowResponse()
    assert (await client.call("GET", "/v1/flows/a")).json["document"] == ""


@pytest.mark.parametrize("cls", [cls for cls in errors.error_classes() if cls not in (errors.PenstockError, errors.Internal)])
async def test_every_error_answers_its_status_and_its_reason(client, dispatcher, cls):
    dispatcher.answers["Search"] = cls("the reason why", metadata={"fact": "1"})
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert answer.status == cls.code.http_status
    assert (answer.error["code"], answer.error["status"]) == (cls.code.http_status, cls.code.grpc_name)
    assert answer.error["message"] == "the reason why"
    info = answer.error["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"], info["metadata"]) == (cls.reason, "penstock", {"fact": "1"})


async def test_overload_says_when_to_try_again(client, dispatcher):
    dispatcher.answers["Search"] = errors.Overloaded("full", retry_after_s=1.5)
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1.500s"} in answer.error["details"]


async def test_an_unknown_exception_is_internal_outside_and_whole_in_the_log(client, dispatcher, caplog):
    dispatcher.answers["Search"] = ZeroDivisionError("secret inside")
    with caplog.at_level(logging.ERROR):
        answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert (answer.status, answer.reason, answer.error["message"]) == (500, "INTERNAL", errors.INTERNAL_MESSAGE)
    assert b"secret" not in answer.body
    assert "ZeroDivisionError: secret inside" in caplog.text


async def test_an_unknown_path_and_a_wrong_verb_are_told_apart(client):
    missing = await client.call("GET", "/v1/flow")
    assert (missing.status, missing.reason) == (404, "ROUTE_NOT_FOUND")
    wrong = await client.call("PUT", "/v1/flows/a")
    assert (wrong.status, wrong.reason, wrong.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "DELETE, GET, HEAD")
    assert wrong.error["status"] == "UNIMPLEMENTED"


async def test_the_unauthenticated_are_told_how_to_authenticate(client, dispatcher):
    dispatcher.answers["Search"] = errors.Unauthenticated("who are you?")
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_body_over_the_limit_is_refused_by_its_declared_length_before_it_is_read(transcoder, connect, dispatcher):
    client = connect(transcoder(message_bytes_max=100))
    answer = await client.call("POST", "/v1/flows/a:run", chunks=[b"x"] * 1000, headers={"content-length": "1000"})
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")
    assert answer.metadata == {"limit_bytes": "100"}


async def test_a_body_that_grows_over_the_limit_is_read_no_further(transcoder):
    app, reads = transcoder(message_bytes_max=100), []

    async def receive():
        reads.append(1)
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    events = []

    async def send(event):
        events.append(event)

    call = asyncio.create_task(app(SCOPE, receive, send))
    await asyncio.wait_for(call, 5)
    assert events[0]["status"] == 413
    assert len(reads) == 2


async def test_a_body_comes_in_pieces(client, dispatcher):
    dispatcher.answers["RunFlow"] = flow_pb2.RunFlowResponse()
    answer = await client.call("POST", "/v1/flows/a:run", chunks=[b'{"inputs": {"q', b'": "x"', b"}}", b""])
    assert answer.status == 200
    assert dict(dispatcher.request.inputs) == {"q": "x"}


async def test_a_body_that_does_not_come_in_time_is_a_deadline_exceeded(transcoder):
    app, events, forever = transcoder(deadline_s=0.05), [], asyncio.Event()
    first = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive():
        if not first:
            await forever.wait()
        return first.pop()

    async def send(event):
        events.append(event)

    await asyncio.wait_for(app(SCOPE, receive, send), 5)
    assert events[0]["status"] == 504


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
async def test_a_body_that_says_it_is_not_json_is_refused(client, kind):
    headers = {"content-type": kind, "origin": "https://elsewhere.example"}
    answer = await client.call("POST", "/v1/flows/a:run", {}, headers=headers)
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert "application/json" in answer.error["message"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/vnd.penstock+json",
        "application/x-www-form-urlencoded",  # curl -d, which names no origin.
    ],
)
async def test_any_kind_of_json_is_taken(client, dispatcher, kind):
    dispatcher.answers["RunFlow"] = flow_pb2.RunFlowResponse()
    assert (await client.call("POST", "/v1/flows/a:run", {}, headers={"content-type": kind})).status == 200


async def test_a_compressed_body_is_refused_in_plain_words(client):
    answer = await client.call("POST", "/v1/flows/a:run", b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert "gzip" in answer.error["message"]


async def test_a_long_url_is_refused(client):
    answer = await client.call("GET", f"/v1/collections/c:search?text={'x' * URL_BYTES_MAX}")
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")


async def test_a_servicer_sees_the_headers_and_the_time_that_is_left(client, dispatcher):
    dispatcher.answers["Search"] = search_answer()
    headers = {"Authorization": "Bearer x", "traceparent": "00-a-b-01", "x-penstock-timeout-s": "2.5"}
    await client.call("POST", "/v1/collections/c:search", {"text": "x"}, headers=headers)
    context = dispatcher.calls[-1][2]
    assert context.metadata()["authorization"] == "Bearer x"
    assert context.metadata()["traceparent"] == "00-a-b-01"
    assert 2.0 < context.time_remaining() <= 2.5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-penstock-timeout-s": "1e6"}, 60.0),
        ({"x-penstock-timeout-s": "inf"}, 60.0),
        ({"x-penstock-timeout-s": "2", "grpc-timeout": "9S"}, 2.0),
        ({"grpc-timeout": "500m"}, 0.5),
        ({"grpc-timeout": "1H"}, 60.0),
        ({}, 60.0),
    ],
)
async def test_a_caller_may_ask_for_less_time_but_not_for_more(transcoder, connect, dispatcher, headers, seconds):
    dispatcher.answers["Search"] = search_answer()
    client = connect(transcoder(deadline_s=60.0))
    await client.call("POST", "/v1/collections/c:search", {"text": "x"}, headers=headers)
    assert dispatcher.calls[-1][2].time_remaining() == pytest.approx(seconds, abs=0.4)


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-penstock-timeout-s", "0"), ("x-penstock-timeout-s", "nan"), ("x-penstock-timeout-s", "soon"), ("grpc-timeout", "5 s")],
)
async def test_a_time_that_is_none_is_refused(client, header, value):
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"}, headers={header: value})
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert header in answer.error["message"]


async def test_health_is_about_the_process_and_readiness_about_what_it_serves(transcoder, connect):
    states = []
    client = connect(transcoder(ready=lambda: bool(states)))
    assert (await client.call("GET", "/healthz")).status == 200
    assert (await client.call("GET", "/readyz")).status == 503
    states.append("loaded")
    assert (await client.call("GET", "/readyz")).status == 200
    assert (await client.call("POST", "/readyz")).headers["allow"] == "GET, HEAD"


async def test_head_is_get_without_the_body(client, dispatcher):
    dispatcher.answers["ListFlows"] = flow_pb2.ListFlowsResponse()
    get, head = await client.call("GET", "/v1/flows"), await client.call("HEAD", "/v1/flows")
    assert (head.status, head.headers) == (200, get.headers)
    assert head.body == b""
    assert (await client.call("HEAD", "/healthz")).body == b""


async def test_the_service_describes_itself(transcoder, connect):
    client = connect(transcoder(title="Penstock gateway", version="1.2.3"))
    document = (await client.call("GET", "/openapi.json")).json
    assert document["info"] == {"title": "Penstock gateway", "version": "1.2.3"}
    assert "/v1/flows/{flow}:run" in document["paths"]


async def test_a_unary_call_is_cancelled_when_its_client_leaves(client, dispatcher):
    started, ended = asyncio.Event(), []

    async def run(_request):
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    dispatcher.answers["RunFlow"] = run
    call = asyncio.create_task(client.call("POST", "/v1/flows/a:run", {}))
    await started.wait()
    client.left.set()
    answer = await asyncio.wait_for(call, 5)
    assert ended == ["cancelled"]
    assert answer.events == []


async def test_a_client_that_leaves_while_it_sends_is_not_answered(transcoder):
    events = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(event):
        events.append(event)

    await transcoder()(SCOPE, receive, send)
    assert events == []


async def test_the_servers_own_cancellation_reaches_the_servicer_and_comes_out(client, dispatcher):
    started, ended = asyncio.Event(), []

    async def run(_request):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    dispatcher.answers["RunFlow"] = run
    call = asyncio.create_task(client.call("POST", "/v1/flows/a:run", {}))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == ["ended"]


async def test_a_call_that_is_cancelled_inside_the_service_is_answered(client, dispatcher):
    async def run(_request):
        raise asyncio.CancelledError

    dispatcher.answers["RunFlow"] = run
    answer = await client.call("POST", "/v1/flows/a:run", {})
    assert (answer.status, answer.reason) == (499, "CANCELLED")


async def test_a_server_that_says_by_an_oserror_that_the_client_left_is_understood(transcoder, dispatcher, caplog):
    dispatcher.answers["RunFlow"] = flow_pb2.RunFlowResponse()

    async def send(_event):
        raise OSError

    receive_once = iter([{"type": "http.request", "body": b"{}"}])

    async def receive_then_wait():
        try:
            return next(receive_once)
        except StopIteration:
            await asyncio.sleep(60)

    await asyncio.wait_for(transcoder()(SCOPE, receive_then_wait, send), 5)
    assert caplog.text == ""


async def test_a_server_without_raw_paths_is_served_too(transcoder, dispatcher):
    dispatcher.answers["GetFlow"] = flow_pb2.GetFlowResponse()
    never = asyncio.Event()
    pending = [{"type": "http.request", "body": b""}]

    async def receive():
        if not pending:
            await never.wait()
        return pending.pop()

    async def send(_event):
        pass

    scope = {**SCOPE, "method": "GET", "path": "/v1/flows/é 100%"}
    await transcoder()(scope, receive, send)
    assert dispatcher.request.name == "flows/é 100%"


async def test_a_lifespan_is_completed_and_a_websocket_closed(transcoder):
    app, sent = transcoder(), []
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return events.pop(0)

    async def send(event):
        sent.append(event["type"])

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket", "path": "/"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_answers_are_one_line_of_json(client, dispatcher):
    dispatcher.answers["Search"] = retrieval_pb2.SearchResponse(hits=[{"chunk": {"text": "a\nb\u2028c"}}])
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x"})
    assert b"\n" not in answer.body
    assert json.loads(answer.body)["hits"][0]["chunk"]["text"] == "a\nb\u2028c"
