import pytest

from penstock.errors import MalformedRequest, MethodNotAllowed, RouteNotFound
from penstock.transcoding.routes import RouteTable, UnsupportedRule, read_routes

SERVICE = """
syntax = "proto3";
package tested;
import "google/api/annotations.proto";
message M {{ string name = 1; repeated string many = 2; M inner = 3; }}
service S {{
  rpc A({stream}M) returns ({answers}M) {{ option (google.api.http) = {{ {rule} }}; }}
}}
"""


@pytest.fixture(scope="module")
def table(library):
    return RouteTable((route, route) for route in read_routes(["library.v1.Library"], library))


def found(table, method, path):
    route, segments = table.find(method, path)
    return route.rpc.name, {".".join(v.field_path): v.capture(segments) for v in route.template.variables}


@pytest.mark.parametrize(
    ("method", "path", "rpc", "variables"),
    [
        ("GET", "/v1/shelves/1/books/2", "GetBook", {"name": "shelves/1/books/2"}),
        ("PATCH", "/v1/shelves/1/books/2", "UpdateBook", {"book.name": "shelves/1/books/2"}),
        ("GET", "/v1/books/2", "GetBook", {"name": "2"}),
        ("GET", "/v1/books/latest", "GetBook", {"name": "latest"}),
        ("GET", "/v1/books/latest/2", "GetBook", {"name": "2"}),
        ("GET", "/v1/books", "FindBooks", {}),
        ("GET", "/v1/b%6Foks", "FindBooks", {}),
        ("PURGE", "/v1/books", "PurgeBooks", {}),
        ("GET", "/v1/books:watch", "WatchBooks", {}),
        ("GET", "/v1/files", "GetFile", {"path": "files"}),
        ("GET", "/v1/files/a/b:lock", "GetFile", {"path": "files/a/b"}),
        ("GET", "/v1/files//a", "GetFile", {"path": "files//a"}),
        # Not a verb that any rule has: part of the name. Nor is an encoded colon one.
        ("GET", "/v1/books/2:burn", "GetBook", {"name": "2:burn"}),
        ("GET", "/v1/books/2%3Awatch", "GetBook", {"name": "2:watch"}),
    ],
)
def test_a_path_leads_to_its_method_with_its_variables(table, method, path, rpc, variables):
    assert found(table, method, path) == (rpc, variables)


def test_an_additional_binding_is_a_route_of_its_own(library):
    routes = [str(route) for route in read_routes(["library.v1.Library"], library) if route.rpc.name == "GetBook"]
    assert routes == ["GET /v1/{name=shelves/*/books/*}", "GET /v1/books/{name}", "GET /v1/books/latest/{name}"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/book", "/v1/books/", "/v1/books/latest/2/3", "/v2/books", "//v1/books", "*", ""]
)
def test_a_path_of_no_method_is_not_found(table, path):
    with pytest.raises(RouteNotFound):
        table.find("GET", path)


def test_a_path_with_another_verb_is_not_allowed_and_says_what_is(table):
    with pytest.raises(MethodNotAllowed) as caught:
        table.find("DELETE", "/v1/books")
    assert caught.value.metadata == {"allow": "GET, HEAD, PURGE"}


def test_a_custom_verb_is_not_the_name_of_a_resource(table):
    with pytest.raises(RouteNotFound):
        table.find("GET", "/v1/shelves/1/books/2:watch")


def test_a_path_that_is_not_utf8_is_malformed(table):
    with pytest.raises(MalformedRequest):
        table.find("GET", "/v1/%ff")


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ('get: "/v1/{nome}"', "nome is no single field"),
        ('get: "/v1/{many}"', "many is no single field"),
        ('get: "/v1/{inner.many}"', "inner.many is no single field"),
        ('get: "/v1/{name.x}"', "name.x is no single field"),
        ('get: "/v1/{inner}"', "inner is a message"),
        ('get: "/v1/**/x"', "must be the last"),
        ('get: "/v1" body: "*"', "GET takes no body"),
        ('post: "/v1" body: "nome"', "no field 'nome'"),
        ('get: "/v1" response_body: "nome"', "no field 'nome'"),
        ('custom { kind: "*" path: "/v1" }', "every HTTP method"),
        ('body: "*"', "without a path"),
        ('get: "/v1" additional_bindings { get: "/v2" additional_bindings { get: "/v3" } }', "additional binding"),
    ],
)
def test_a_rule_that_cannot_be_served_stops_the_start(compile_proto, rule, fault):
    pool = compile_proto(SERVICE.format(rule=rule, stream="", answers=""))
    with pytest.raises(UnsupportedRule, match=fault):
        read_routes(["tested.S"], pool)


def test_streams_that_http_cannot_carry_stop_the_start(compile_proto):
    client_stream = compile_proto(SERVICE.format(rule='post: "/v1"', stream="stream ", answers=""))
    with pytest.raises(UnsupportedRule, match="client stream"):
        read_routes(["tested.S"], client_stream)
    cut_stream = compile_proto(SERVICE.format(rule='get: "/v1" response_body: "name"', stream="", answers="stream "))
    with pytest.raises(UnsupportedRule, match="cut to a field"):
        read_routes(["tested.S"], cut_stream)


def test_two_rules_for_the_same_paths_stop_the_start(compile_proto):
    pool = compile_proto(
        SERVICE.format(rule='get: "/v1/{name}" additional_bindings { get: "/v1/{inner.name=*}" }', stream="", answers="")
    )
    with pytest.raises(UnsupportedRule, match="the same paths"):
        RouteTable((route, route) for route in read_routes(["tested.S"], pool))
