"""Binding, through the app: what the dispatcher is given for what a client sent."""

import base64
import json

import pytest

BOOK = {"name": "shelves/1/books/2", "title": "", "pages": "0"}


async def bound(client, dispatcher, method, target, body=b""):
    dispatcher.answers.clear()
    dispatcher.answers.update(dict.fromkeys(("GetBook", "GetFile", "UpdateBook", "FindBooks", "Echo", "Search", "RunFlow")))
    dispatcher.answers.update(CreateFlow=None, GetFlow=None, DeleteFlow=None)
    await client.call(method, target, body)
    return dispatcher.request


async def test_a_path_binds_its_fields(library_client, dispatcher):
    request = await bound(library_client, dispatcher, "GET", "/v1/shelves/a%20b/books/c%2Fd")
    assert request.name == "shelves/a b/books/c%2Fd"
    assert dispatcher.calls[-1][0] == "/library.v1.Library/GetBook"


async def test_an_additional_binding_calls_the_same_method(library_client, dispatcher):
    request = await bound(library_client, dispatcher, "GET", "/v1/books/c%2Fd")
    assert (dispatcher.calls[-1][0], request.name) == ("/library.v1.Library/GetBook", "c/d")


async def test_a_rest_variable_binds_a_path_with_slashes(library_client, dispatcher):
    request = await bound(library_client, dispatcher, "GET", "/v1/files/a/b.txt")
    assert request.path == "files/a/b.txt"


async def test_a_body_field_takes_the_body_the_path_its_part_and_the_query_the_rest(library_client, dispatcher):
    target = "/v1/shelves/1/books/2?create=true&update_mask=title,pages"
    request = await bound(library_client, dispatcher, "PATCH", target, {"title": "T", "pages": 7})
    assert (request.book.name, request.book.title, request.book.pages) == ("shelves/1/books/2", "T", 7)
    assert request.create is True
    assert list(request.update_mask.paths) == ["title", "pages"]


async def test_a_query_binds_nested_repeated_and_well_known_fields(library_client, dispatcher):
    target = (
        "/v1/books?filter.author=A%20B&filter.colours=COLOUR_RED&filter.colours=2&filter.since=2026-01-31T12:00:00Z"
        "&filter.inner.author=C&words=a&words=b&words=&exact=true&cover=-_8&colour=COLOUR_BLUE&priceMax=1.5&edition=3"
        "&extra=%7B%22a%22%3A1%7D&age=1.5s&limit=4&number=-5&signed=false"
    )
    request = await bound(library_client, dispatcher, "GET", target)
    assert (request.filter.author, list(request.filter.colours), request.filter.inner.author) == ("A B", [1, 2], "C")
    assert request.filter.since.ToJsonString() == "2026-01-31T12:00:00Z"
    assert (list(request.words), request.exact, request.cover) == (["a", "b", ""], True, b"\xfb\xff")
    assert (request.colour, request.price_max, request.edition.value, request.limit) == (2, 1.5, 3, 4)
    assert (dict(request.extra), request.age.ToJsonString(), request.number) == ({"a": 1}, "1.500s", -5)
    assert request.HasField("signed")
    assert not request.signed.value


@pytest.mark.parametrize(
    ("query", "reason", "field", "words"),
    [
        ("nope=1", "UNKNOWN_FIELD", "nope", "it has"),
        ("wrods=1", "UNKNOWN_FIELD", "wrods", "did you mean 'words'?"),
        ("filter.auhtor=x", "UNKNOWN_FIELD", "filter.auhtor", "did you mean 'author'?"),
        ("words.x=1", "MALFORMED_REQUEST", "words.x", "no fields"),
        ("extra.fields=1", "MALFORMED_REQUEST", "extra.fields", "no fields"),
        ("filter=x", "MALFORMED_REQUEST", "filter", "give its fields, such as filter.author"),
        ("samples=x", "MALFORMED_REQUEST", "samples", "a query cannot hold"),
        ("samples.name=x", "MALFORMED_REQUEST", "samples.name", "no fields"),
        ("labels=x", "MALFORMED_REQUEST", "labels", "a query cannot hold"),
        ("exact=yes", "MALFORMED_REQUEST", "exact", "true or false"),
        ("limit=-1", "MALFORMED_REQUEST", "limit", "from 0 to"),
        ("limit=1&limit=2", "MALFORMED_REQUEST", "limit", "given twice"),
        ("isbn=1&number=2", "MALFORMED_REQUEST", "number", "excludes 'isbn'"),
        ("extra=%7B", "MALFORMED_REQUEST", "extra", "must be JSON"),
        ("colour=COLOUR_BLU", "MALFORMED_REQUEST", "colour", "did you mean 'COLOUR_BLUE'?"),
        ("edition=x", "MALFORMED_REQUEST", "edition", "whole number"),
        ("filter" + ".inner" * 40 + ".author=x", "MALFORMED_REQUEST", None, "too deeply"),
        ("words=%ff", "MALFORMED_REQUEST", None, "UTF-8"),
    ],
)
async def test_a_wrong_query_is_refused_with_the_field(library_client, query, reason, field, words):
    answer = await library_client.call("GET", f"/v1/books?{query}")
    assert (answer.status, answer.reason) == (400, reason)
    assert words in answer.error["message"]
    assert field is None or answer.metadata["field"] == field


async def test_a_whole_body_leaves_nothing_to_the_query(client):
    answer = await client.call("POST", "/v1/collections/c:search?text=x", {"text": "x"})
    assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD")


async def test_a_body_field_is_not_read_from_the_query(library_client):
    answer = await library_client.call("PATCH", "/v1/shelves/1/books/2?book.title=x", {})
    assert (answer.status, answer.metadata["field"]) == (400, "book.title")


async def test_an_empty_body_is_an_empty_message(client, dispatcher):
    request = await bound(client, dispatcher, "POST", "/v1/flows/a:run")
    assert request.name == "flows/a"
    assert not request.HasField("inputs")


async def test_fields_may_be_given_by_their_json_names(client, dispatcher):
    request = await bound(client, dispatcher, "POST", "/v1/collections/c:search", {"text": "x", "topK": 3})
    assert request.top_k == 3


async def test_bytes_come_as_base64_of_either_alphabet(client, dispatcher):
    vector = bytes(range(248, 256))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        body = {"vector": encode(vector).decode()}
        assert (await bound(client, dispatcher, "POST", "/v1/collections/c:search", body)).vector == vector


async def test_a_field_that_the_path_gives_may_be_in_the_body_if_it_says_the_same(client, dispatcher):
    request = await bound(client, dispatcher, "POST", "/v1/collections/c:search", {"collection": "collections/c", "text": "x"})
    assert request.collection == "collections/c"
    answer = await client.call("POST", "/v1/collections/c:search", {"collection": "collections/d", "text": "x"})
    assert (answer.status, answer.reason, answer.metadata["field"]) == (400, "MALFORMED_REQUEST", "collection")
    assert "contradicts the path" in answer.error["message"]


async def test_a_flow_document_may_be_given_as_an_object_and_travels_as_text(client, dispatcher):
    document = {"nodes": [{"id": "é", "params": {"top_k": 3, "t": 0.5, "none": None}}], "edges": []}
    request = await bound(client, dispatcher, "POST", "/v1/flows", {"flow_id": "a", "document": document})
    assert json.loads(request.document) == document
    assert ": " not in request.document
    request = await bound(client, dispatcher, "POST", "/v1/flows", {"flow_id": "a", "document": "{ not JSON"})
    assert request.document == "{ not JSON"


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b'{"inputs": {"a": 1}', "MALFORMED_REQUEST", "(line 1, column 20)"),
        (b'{\n "inputs": tru}', "MALFORMED_REQUEST", "line 2"),
        (b"hello", "MALFORMED_REQUEST", "not JSON"),
        (b'{"inputs": {"a": NaN}}', "MALFORMED_REQUEST", "not JSON"),
        (b'{"inputs": {"a": Infinity}}', "MALFORMED_REQUEST", "not JSON"),
        (b'{"inputs": {"a": 1e999}}', "MALFORMED_REQUEST", "not JSON"),
        (b'{"inputs": "\xff"}', "MALFORMED_REQUEST", "UTF-8"),
        (b'{"inputs": "\\ud800"}', "MALFORMED_REQUEST", "surrogate"),
        (b'{"inputs": {}} {}', "MALFORMED_REQUEST", "after"),
        (b"[" * 50_000, "MALFORMED_REQUEST", "too deeply"),
        (b'{"inputs": ' + b'{"a":' * 500 + b"1" + b"}" * 501, "MALFORMED_REQUEST", "too deeply"),
        (b'{"inputs": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}", "MALFORMED_REQUEST", "too deeply"),
        (b"[]", "MALFORMED_REQUEST", "must be a JSON object, a penstock.flow.v1.RunFlowRequest"),
        (b"null", "MALFORMED_REQUEST", "must be a JSON object"),
        (b'{"inputs": 5}', "MALFORMED_REQUEST", "'inputs' must be a JSON object"),
        (b'{"imputs": {}}', "UNKNOWN_FIELD", "did you mean 'inputs'?"),
    ],
)
async def test_a_wrong_body_is_refused_and_says_why(client, body, reason, words):
    answer = await client.call("POST", "/v1/flows/a:run", body)
    assert (answer.status, answer.reason) == (400, reason)
    assert words in answer.error["message"]


async def test_a_document_nested_deeper_than_can_be_written_is_refused(client):
    body = b'{"flow_id": "a", "document": ' + b"[" * 900 + b"]" * 900 + b"}"
    answer = await client.call("POST", "/v1/flows", body)
    assert (answer.status, answer.metadata["field"]) == (400, "document")


async def test_malformed_json_says_where_in_its_metadata(client):
    answer = await client.call("POST", "/v1/flows/a:run", b'{\n"inputs": x}')
    assert answer.metadata == {"line": "2", "column": "11", "position": "12"}


async def test_a_wrong_field_is_a_field_violation_too(client):
    answer = await client.call("POST", "/v1/collections/c:search", {"text": "x", "top_k": "many"})
    violations = next(detail for detail in answer.error["details"] if "field_violations" in detail)
    assert violations["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert [violation["field"] for violation in violations["field_violations"]] == ["top_k"]


@pytest.mark.parametrize("body", [b"null", b"[]", b'"flows/a"'])
async def test_a_body_that_is_no_object_names_no_field(client, body):
    answer = await client.call("POST", "/v1/flows/a:run", body)
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert not any("field_violations" in detail for detail in answer.error["details"])


async def test_a_key_given_twice_has_its_last_value(client, dispatcher):
    request = await bound(client, dispatcher, "POST", "/v1/collections/c:search", b'{"text": "a", "text": "b"}')
    assert request.text == "b"


async def test_a_method_without_a_body_refuses_one(client):
    answer = await client.call("DELETE", "/v1/flows/a", {"name": "flows/b"})
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert "takes no body" in answer.error["message"]


async def test_what_is_wrong_with_a_request_is_handed_to_the_dispatcher_so_that_it_is_traced(client, dispatcher):
    await client.call("POST", "/v1/flows/a:run", b"{")
    method, request, _ = dispatcher.calls[-1]
    assert method == "/penstock.flow.v1.RunService/RunFlow"
    assert request.reason == "MALFORMED_REQUEST"
