"""Whatever a client sends, the app answers, and never with a 500 of its own."""

import asyncio
import json
from string import printable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.flow.v1 import flow_pb2
from penstock.generation.v1 import generation_pb2
from penstock.retrieval.v1 import retrieval_pb2

FUZZ = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # A dispatcher and an app have no state between calls.
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE", "X"])
NAMES = [
    *(
        "v1",
        "v2",
        "flows",
        "a",
        "collections",
        "models",
        "default",
        "documents:ingest",
        "chunks",
        "chunks:upsert",
        "flows:validate",
    ),
    *(
        "a:run",
        "a:stream",
        "a:search",
        "a:generate",
        "books",
        "shelves",
        "files",
        "echo",
        "books:watch",
        "titles",
        "b:",
        ":",
        "",
        "*",
    ),
    *("%", "%ff", "%2F", "%00", "..", "é", "{name}", "healthz", "openapi.json"),
]
PATHS = st.lists(st.sampled_from(NAMES) | st.text(printable.replace("?", ""), max_size=6), max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)
FIELDS = [
    *("text", "vector", "top_k", "topK", "page_size", "page_token", "filter.author", "filter", "filter.inner.colours", "words"),
    *(
        "exact",
        "cover",
        "colour",
        "edition",
        "extra",
        "age",
        "samples",
        "labels",
        "limit",
        "number",
        "name",
        "inputs",
        "flow_id",
    ),
]
VALUES = [
    "1",
    "-1",
    "x",
    "",
    "true",
    "%ff",
    "%00",
    "AQ==",
    "{}",
    "[",
    "null",
    "1e9",
    "9" * 30,
    "2026-01-31T12:00:00Z",
    "1s",
    "NaN",
]
QUERIES = st.lists(
    st.tuples(st.sampled_from(FIELDS) | st.text(printable, max_size=5), st.sampled_from(VALUES)), max_size=4
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(VALUES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
BODIES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())


async def tokens(_request):
    yield flow_pb2.StreamFlowResponse(token={"text": "x"})


async def deltas(_request):
    yield generation_pb2.StreamGenerateResponse(delta={"text": "x"})


@pytest.fixture
def fuzzed(client, library_client, dispatcher, library_message):
    for module in (flow_pb2, retrieval_pb2, generation_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                dispatcher.answers[method.name] = method.output_type._concrete_class()
    dispatcher.answers.update(StreamFlow=tokens, StreamGenerate=deltas)
    book, found = library_message("Book")(), library_message("FindBooksResponse")()

    async def books(_request):
        yield book

    dispatcher.answers.update(GetBook=book, GetFile=book, UpdateBook=book, FindBooks=found, ListTitles=found, PurgeBooks=found)
    dispatcher.answers.update(WatchBooks=books, Echo=lambda request: request)
    return client, library_client


def check(answer):
    assert answer.status in {200, 400, 404, 405, 413}
    if answer.status != 200 and answer.body:
        assert answer.error["code"] == answer.status
        assert answer.reason
    assert answer.complete


@FUZZ
@given(method=METHODS, path=PATHS, query=QUERIES, body=BODIES)
def test_no_request_breaks_the_app(fuzzed, method, path, query, body):
    for client in fuzzed:
        check(asyncio.run(client.call(method, f"{path}?{query}".encode("ascii", "replace").decode(), body)))


@FUZZ
@given(
    path=st.sampled_from(
        ["/v1/flows", "/v1/flows/a:run", "/v1/flows/a:stream", "/v1/collections/a:search", "/v1/flows:validate"]
    ),
    body=BODIES,
)
def test_no_body_breaks_a_method_of_ours(fuzzed, path, body):
    check(asyncio.run(fuzzed[0].call("POST", path, body)))


@FUZZ
@given(query=QUERIES)
def test_no_query_breaks_a_method(fuzzed, query):
    check(asyncio.run(fuzzed[1].call("GET", f"/v1/books?{query}")))


@FUZZ
@given(value=JSON, field=st.integers(0, 40))
def test_no_json_breaks_any_type_of_field_and_what_is_taken_comes_back(fuzzed, library_message, value, field):
    name = library_message("Everything").DESCRIPTOR.fields[field].name
    answer = asyncio.run(fuzzed[1].call("POST", "/v1/echo", {name: value}))
    check(answer)
    if answer.status == 200:
        again = asyncio.run(fuzzed[1].call("POST", "/v1/echo", answer.body))
        assert again.json == answer.json
