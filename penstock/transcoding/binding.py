"""The request message of an HTTP request: body, then query, then path, each field at most once.

    body "*"       the JSON body is the message; nothing is read from the query
    body "field"   the JSON body is that field; the query has the rest
    no body        the query has everything that the path does not bind

A query parameter names a field by its path, such as `filter.since=...`; repeated fields repeat it. A field that the path binds
may also be in the body or the query if it says the same there. An empty body is an empty message.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstock.errors import MalformedRequest, UnknownField
from penstock.transcoding.faults import Fault
from penstock.transcoding.reading import DEPTH_MAX, FieldReader, MessageReader, Readers, check_free, map_entry
from penstock.transcoding.routes import WHOLE_BODY, Route
from penstock.transcoding.scalars import text_reader
from penstock.transcoding.templates import Variable
from penstock.transcoding.wellknown import wellknown_text_reader

FIELD_PATH_DEPTH_MAX: Final = 32
"""Longest field path of a query parameter, in names."""

_TOO_DEEP: Final = "depth limit exceeded"
"""What orjson says of JSON with more than 1024 levels; it stops there, so that nothing deeper is ever walked through."""


class Binder:
    """Makes the request messages of one route. Everything that descriptors decide is decided when it is built."""

    def __init__(self, route: Route, readers: Readers) -> None:
        self._route = route
        self._message: Callable[..., Message] = GetMessageClass(route.rpc.input_type)
        self._reader = readers.of(route.rpc.input_type)
        self._variables = [_PathVariable(variable, self._reader) for variable in route.template.variables]

    def bind(self, segments: Sequence[str], query: bytes, body: bytes) -> Message:
        """The message of a request whose path has matched the route.

        Raises MalformedRequest and UnknownField, which name the field.
        """
        kwargs = self._read_body(body)
        if query:
            self._read_query(query, kwargs)
        for variable in self._variables:
            variable.bind(segments, kwargs)
        return self._message(**kwargs)

    def _read_body(self, body: bytes) -> dict[str, Any]:
        if not body:
            return {}
        if not self._route.body:
            raise MalformedRequest(f"{self._route} takes no body")
        value = _parse(body)
        try:
            if self._route.body == WHOLE_BODY:
                return self._reader.read(value, DEPTH_MAX)
            field = self._reader.fields[self._route.body]
            return {} if value is None and not field.takes_null else {field.name: field.read(value, DEPTH_MAX)}
        except Fault as fault:
            raise fault.to_error("body") from None

    def _read_query(self, query: bytes, kwargs: dict[str, Any]) -> None:
        if self._route.body == WHOLE_BODY:
            message = f"{self._route} takes its fields from the body, not from the query"
            raise UnknownField(message, metadata={"location": "query"})
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError as error:
            raise MalformedRequest("the query is not UTF-8 once percent-decoded") from error
        for name, text in pairs:
            try:
                self._set_from_query(name, text, kwargs)
            except Fault as fault:
                raise fault.to_error("query") from None

    def _set_from_query(self, name: str, text: str, kwargs: dict[str, Any]) -> None:
        names = name.split(".")
        try:
            if len(names) > FIELD_PATH_DEPTH_MAX:
                raise Fault("is nested too deeply")
            if names[0] == self._route.body:
                raise Fault("comes in the body")
            field, target = _descend(self._reader, names, kwargs)
            read = _query_reader(field)
            if field.descriptor.is_repeated:
                target.setdefault(field.name, []).append(read(text, DEPTH_MAX))
            else:
                check_free(field, target)
                target[field.name] = read(text, DEPTH_MAX)
        except Fault as fault:
            fault.path = name[:200]
            raise


class _PathVariable:
    """Puts one path variable into the message."""

    def __init__(self, variable: Variable, reader: MessageReader) -> None:
        self._variable = variable
        self._reader = reader
        self.top = variable.field_path[0]
        descriptor = _leaf(reader, variable.field_path).descriptor
        self._read = text_reader(descriptor)

    def bind(self, segments: Sequence[str], kwargs: dict[str, Any]) -> None:
        path = self._variable.field_path
        try:
            value = self._read(self._variable.capture(segments), DEPTH_MAX)
            field, target = _descend(self._reader, path, kwargs)
            if field.name not in target:
                check_free(field, target)
            elif target[field.name] != value:
                raise Fault("contradicts the path, which gives it too")
            target[field.name] = value
        except Fault as fault:
            fault.path = ".".join(path)
            raise fault.to_error("path") from None


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if error.msg == _TOO_DEEP:
            raise MalformedRequest("the body is nested too deeply") from error
        place = {"line": str(error.lineno), "column": str(error.colno), "position": str(error.pos)}
        message = f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise MalformedRequest(message, metadata=place) from error


def _descend(reader: MessageReader, names: Sequence[str], kwargs: dict[str, Any]) -> tuple[FieldReader, dict[str, Any]]:
    """The field that a path of names leads to, and the keyword arguments that it belongs in."""
    *parents, leaf = names
    for name in parents:
        field = _field(reader, name)
        if field.message is None or field.descriptor.is_repeated:
            raise Fault("has no fields that can be given here").inside(name)
        reader = field.message
        if field.name not in kwargs:
            check_free(field, kwargs)
        kwargs = kwargs.setdefault(field.name, {})
    return _field(reader, leaf), kwargs


def _leaf(reader: MessageReader, names: Sequence[str]) -> FieldReader:
    scratch: dict[str, Any] = {}
    return _descend(reader, names, scratch)[0]


def _field(reader: MessageReader, name: str) -> FieldReader:
    field = reader.fields.get(name)
    if field is None:
        raise reader.unknown(name)
    return field


def _query_reader(field: FieldReader) -> Callable[[str, int], Any]:
    """The reader of one value of a field out of a query."""
    descriptor: FieldDescriptor = field.descriptor
    if descriptor.message_type is None:
        return text_reader(descriptor)
    read = None if map_entry(descriptor) else wellknown_text_reader(descriptor.message_type)
    if read is None:
        below: Mapping[str, Any] = field.message.fields if field.message and not descriptor.is_repeated else {}
        advice = f"give its fields, such as {field.name}.{next(iter(below))}" if below else ""
        raise Fault("is a message, which a query cannot hold", suggestion=advice)
    return read
