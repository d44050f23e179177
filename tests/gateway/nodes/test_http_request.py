"""http: its URL, headers and body, and what becomes of the answer."""

from typing import Any

import pytest

from gateway.backends import WebAnswer
from gateway.nodes.url_template import UrlTemplate
from gateway.validation import examine
from penstock.errors import FlowMisconfigured, InvalidArgument
from tests.gateway.fakes import World, document, node


def flow(inputs: dict[str, str] | None = None, **params: Any) -> str:
    given = {"id": "text"} if inputs is None else inputs
    return document(
        *(node(name, "input", type=kind) for name, kind in given.items()),
        node("ask", "http", **({"url": "https://api.example.com/orders/{id}"} | params)),
        *(node(name, "output") for name in ("status", "text", "json")),
        edges=[*(f"{name} > ask.{name}" for name in given), *(f"ask.{name} > {name}" for name in ("status", "text", "json"))],
    )


async def test_variables_are_encoded_where_they_stand_and_json_is_read(world: World) -> None:
    url = "https://api.example.com/orders/{id}?q={q}&page={page}"
    result = await world.compile(flow({"id": "text", "q": "text", "page": "number"}, url=url)).run(
        {"id": "a/b?c#d", "q": "x&y=é 100%", "page": 2}
    )
    assert world.web.requests[0].url == "https://api.example.com/orders/a%2Fb%3Fc%23d?q=x%26y%3D%C3%A9%20100%25&page=2"
    assert (world.web.requests[0].method, world.web.requests[0].body, dict(world.web.requests[0].headers)) == ("GET", None, {})
    assert result.outputs == {"status": 200, "text": '{"ok": true}', "json": {"ok": True}}


@pytest.mark.parametrize("value", ["", ".", "..", "../admin", "a/../b", "..\\b", "a/."])
async def test_a_value_in_the_path_leads_nowhere_else(world: World, value: str) -> None:
    given = flow({"id": "json"})  # An input of the type text would itself refuse an empty one.
    with pytest.raises(InvalidArgument, match="leads elsewhere"):
        await world.compile(given).run({"id": value})
    assert world.web.requests == []


async def test_headers_have_variables_and_secrets_and_the_flow_has_none_of_them(world: World) -> None:
    world.web.secrets["TOKEN"] = "t0p {id}"
    headers = {"Authorization": "Bearer {secret:TOKEN}", "X-Order": "no. {id} {{}}", "content-type": "application/x"}
    compiled = world.compile(flow(method="POST", headers=headers, body={"a": 1}))
    await compiled.run({"id": "7"})
    assert world.web.requests[0].headers == {
        "content-type": "application/x", "authorization": "Bearer t0p {id}", "x-order": "no. 7 {}",
    }  # fmt: skip
    del world.web.secrets["TOKEN"]
    with pytest.raises(FlowMisconfigured, match="no secret 'TOKEN'"):
        await compiled.run({"id": "7"})


async def test_a_body_is_json_with_values_in_it(world: World) -> None:
    body = {"whole": "{thing}", "text": "is {thing} and {id}", "list": ["{id}", 1, None, {"{id}": "{{id}}"}]}
    inputs = {"id": "text", "thing": "json"}
    await world.compile(flow(inputs, method="POST", body=body)).run({"id": 'a"b', "thing": {"n": [1.5]}})
    request = world.web.requests[0]
    assert request.headers == {"content-type": "application/json"}
    sent = b'{"whole":{"n":[1.5]},"text":"is {\\"n\\":[1.5]} and a\\"b","list":["a\\"b",1,null,{"{id}":"{id}"}]}'
    assert request.body == sent


@pytest.mark.parametrize(
    ("text", "content_type", "value"),
    [
        ("[1, 2]", "text/plain", [1, 2]),
        ("3", "application/problem+json", 3),
        ("3", "text/plain", None),
        ("{broken", "application/json", None),
        ("[" * 40 + "]" * 40, "application/json", None),
        ("", "application/json", None),
    ],
)
async def test_an_answer_that_is_no_json_has_null_for_it(world: World, text: str, content_type: str, value: object) -> None:
    world.web.answer = WebAnswer(status=404, text=text, headers={"content-type": content_type})
    result = await world.compile(flow()).run({"id": "7"})
    assert result.outputs == {"status": 404, "text": text, "json": value}


@pytest.mark.parametrize(
    "url",
    [
        "https://{id}/x", "https://api.{id}.com/", "{id}", "https://api.example.com:{id}/", "https://user@api.example.com/{id}",
        "{id}://api.example.com", "ftp://api.example.com/{id}", "https://api.example.com/{id}#x",
        "https://api.example.com/a b/{id}", "https://api.example.com/{ id}",
        "https://api.example.com/{id", "https://api.example.com/é/{id}", "https://api.example.com\\@evil.org/{id}", "//x/{id}",
        "https://api.example.com/{id}" + "x" * 5000, "https://evil.org?{id}@x\n",
    ],
)  # fmt: skip
def test_whom_a_flow_asks_is_not_for_a_value_to_say(url: str) -> None:
    _, faults = examine(flow(url=url))
    assert [(fault.node_id, fault.field) for fault in faults if fault.node_id == "ask"] == [("ask", "params.url")]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"headers": {"Host": "evil.org"}}, "connection's own"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "connection's own"),
        ({"headers": {"a b": "c"}}, "match pattern"),
        ({"headers": {"x": "a { b"}}, "lone {"),
        ({"headers": {"x": "{secret:lower}"}}, "lone"),
        ({"body": {"a": 1}}, "a GET request has no body"),
        ({"method": "POST", "body": ["} {id}"]}, "lone }"),
        ({"method": "TRACE"}, "must be 'GET'"),
        ({"parameters": {"di": "text"}}, "no variable has the name 'di'"),
        ({"parameters": {"id": "number"}}, "takes number"),
    ],
)
def test_faults_are_told(params: dict[str, Any], message: str) -> None:
    _, faults = examine(flow(**params))
    assert [fault.node_id for fault in faults if message in fault.message] == ["ask"]


def test_a_host_without_a_path_has_one() -> None:
    assert UrlTemplate("https://api.example.com").render({}) == "https://api.example.com/"
    assert UrlTemplate("https://api.example.com?q={q}").render({"q": ".."}) == "https://api.example.com/?q=.."
