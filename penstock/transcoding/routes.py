"""Routes: which method of which service an HTTP request means, read from the services' descriptors.

Every rule of a google.api.http option, its additional bindings included, is one Route. A rule that this transcoder cannot serve
is an UnsupportedRule when the routes are built, so that a service does not start with an API that half works.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool

from penstock.errors import MalformedRequest, MethodNotAllowed, RouteNotFound
from penstock.transcoding.templates import InvalidTemplate, Segment, Template, Wildcard, decode_segment, parse_template

WHOLE_BODY = "*"

Target = TypeVar("Target")
"""What a route leads to."""


class UnsupportedRule(ValueError):
    """A google.api.http rule that cannot be served as it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule: an HTTP method and a path, and the method that they call.

    `body` is "*" (the whole message), a field's name, or empty (no body). `response_body` is a field's name or empty (the whole
    message).
    """

    http_method: str
    template: Template
    rpc: MethodDescriptor
    body: str
    response_body: str

    @property
    def method(self) -> str:
        """The method's gRPC path, "/package.Service/Method"."""
        return f"/{self.rpc.containing_service.full_name}/{self.rpc.name}"

    def __str__(self) -> str:
        return f"{self.http_method} {self.template.text}"


def read_routes(services: Sequence[str], pool: DescriptorPool | None = None) -> list[Route]:
    """The routes of the services (full names, their modules imported), in the order of their declarations.

    A method without a google.api.http option is not reachable over HTTP. Raises UnsupportedRule, and KeyError for an unknown
    service.
    """
    pool = pool or Default()
    methods = (rpc for service in services for rpc in pool.FindServiceByName(service).methods)
    return [route for rpc in methods for route in _method_routes(rpc)]


FOUND_MAX: Final = 1024
"""Paths whose routes are remembered: most requests are for few."""


class RouteTable(Generic[Target]):
    """Finds where a request goes: a tree of path segments, in which a literal goes before `*`, and `*` before `**`.

    Raises UnsupportedRule when two routes take the same paths.
    """

    def __init__(self, targets: Iterable[tuple[Route, Target]]) -> None:
        self._root: _Node[Target] = _Node()
        self._verbs: set[str] = set()
        self._found: dict[tuple[str, str], tuple[Target, tuple[str, ...]]] = {}
        for route, target in targets:
            self._root.add(route, target)
            self._verbs |= {route.template.verb} - {""}

    def find(self, http_method: str, path: str) -> tuple[Target, Sequence[str]]:
        """The target of a percent-encoded path and the path's segments, its verb taken off.

        Raises RouteNotFound, MethodNotAllowed (its metadata's "allow" is what the header of that name wants), MalformedRequest.
        """
        known = self._found.get((http_method, path))
        if known is not None:
            return known
        found = self._search(http_method, path)
        if len(self._found) >= FOUND_MAX:
            self._found.clear()
        self._found[http_method, path] = found
        return found

    def _search(self, http_method: str, path: str) -> tuple[Target, tuple[str, ...]]:
        segments = path.split("/")[1:]
        last, colon, verb = segments[-1].rpartition(":") if segments else ("", "", "")
        if colon and verb in self._verbs:
            segments[-1] = last
        else:
            verb = ""
        allowed: set[str] = set()
        for leaf in self._root.walk(_decoded(segments), 0):
            by_method = leaf.get(verb, {})
            if http_method in by_method:
                return by_method[http_method], tuple(segments)
            allowed.update(by_method)
        raise _method_not_allowed(http_method, path, allowed) if allowed else _route_not_found(http_method, path)


@dataclass(slots=True)
class _Node(Generic[Target]):
    """Where a path has come to. The leaves are targets by custom verb ("" without one), then by HTTP method."""

    literals: dict[str, "_Node[Target]"] = field(default_factory=dict)
    one: "_Node[Target] | None" = None
    here: dict[str, dict[str, Target]] = field(default_factory=dict)
    rest: dict[str, dict[str, Target]] = field(default_factory=dict)

    def add(self, route: Route, target: Target) -> None:
        node = self
        *_, last = segments = route.template.segments
        for segment in segments[:-1] if last is Wildcard.REST else segments:
            node = node.child(segment)
        leaf = node.rest if last is Wildcard.REST else node.here
        by_method = leaf.setdefault(route.template.verb, {})
        if route.http_method in by_method:
            raise UnsupportedRule(f"{route} of {route.method}: another rule takes the same paths")
        by_method[route.http_method] = target

    def child(self, segment: Segment) -> "_Node[Target]":
        if isinstance(segment, str):
            return self.literals.setdefault(segment, _Node())
        self.one = self.one or _Node()
        return self.one

    def walk(self, segments: Sequence[str], depth: int) -> Iterator[dict[str, dict[str, Target]]]:
        """The leaves that match, best first."""
        if depth == len(segments):
            yield self.here
        else:
            segment = segments[depth]
            if segment in self.literals:
                yield from self.literals[segment].walk(segments, depth + 1)
            if self.one and segment:
                yield from self.one.walk(segments, depth + 1)
        if self.rest:
            yield self.rest


def _decoded(segments: Sequence[str]) -> list[str]:
    try:
        return [decode_segment(segment) for segment in segments]
    except UnicodeDecodeError as error:
        raise MalformedRequest("the path is not UTF-8 once percent-decoded") from error


def _route_not_found(http_method: str, path: str) -> RouteNotFound:
    message = f"no method has {http_method} {path[:200]}; GET /openapi.json lists them all"
    return RouteNotFound(message, metadata={"path": path[:200]})


def _method_not_allowed(http_method: str, path: str, allowed: set[str]) -> MethodNotAllowed:
    allow = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
    return MethodNotAllowed(f"{path[:200]} takes {allow}, not {http_method}", metadata={"allow": allow})


def _method_routes(rpc: MethodDescriptor) -> Iterator[Route]:
    options = rpc.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    main = options.Extensions[annotations_pb2.http]
    if any(rule.additional_bindings for rule in main.additional_bindings):
        raise UnsupportedRule(f"{rpc.full_name}: an additional binding has additional bindings")
    for rule in (main, *main.additional_bindings):
        route = _route(rpc, rule)
        _check(route)
        yield route


def _route(rpc: MethodDescriptor, rule: http_pb2.HttpRule) -> Route:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise UnsupportedRule(f"{rpc.full_name}: a rule without a path")
    http_method, path = (rule.custom.kind, rule.custom.path) if kind == "custom" else (kind.upper(), getattr(rule, kind))
    try:
        template = parse_template(path)
    except InvalidTemplate as error:
        raise UnsupportedRule(f"{rpc.full_name}: {error}") from error
    return Route(http_method=http_method, template=template, rpc=rpc, body=rule.body, response_body=rule.response_body)


def _check(route: Route) -> None:
    taken, answered = route.rpc.input_type, route.rpc.output_type
    faults = {
        "a client stream cannot be called over HTTP": route.rpc.client_streaming,
        "a kind of '*' would take every HTTP method": route.http_method == "*",
        "GET takes no body": bool(route.body) and route.http_method in ("GET", "HEAD"),
        "a stream's messages cannot be cut to a field": route.rpc.server_streaming and bool(route.response_body),
        f"no field {route.body!r} to take the body": route.body not in ("", WHOLE_BODY, *taken.fields_by_name),
        f"no field {route.response_body!r} to answer": route.response_body not in ("", *answered.fields_by_name),
    }
    for fault, present in faults.items():
        if present:
            raise UnsupportedRule(f"{route.rpc.full_name}: {route}: {fault}")
    for variable in route.template.variables:
        _check_path_field(route, variable.field_path, taken)


def _check_path_field(route: Route, field_path: Sequence[str], message: Descriptor) -> None:
    """A path variable is a scalar field, reached through fields that are single messages."""
    kind: Descriptor | None = message
    for name in field_path:
        found = kind.fields_by_name.get(name) if kind else None
        if found is None or found.is_repeated:
            raise UnsupportedRule(f"{route.rpc.full_name}: {route}: {'.'.join(field_path)} is no single field")
        kind = found.message_type
    if kind is not None:
        raise UnsupportedRule(f"{route.rpc.full_name}: {route}: {'.'.join(field_path)} is a message")
