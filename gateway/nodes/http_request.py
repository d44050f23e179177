"""http: a request to an HTTP server of others that the operator allows, and its answer."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, Field, model_validator

from gateway.backends import Backends, Web, WebAnswer, WebRequest
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.nodes.template import Template
from gateway.nodes.url_template import UrlTemplate
from gateway.nodes.url_template import checked as checked_url
from gateway.values import ANYTHING, DEPTH_MAX, PortType, as_json, as_text, is_deeper
from penstock.errors import InvalidArgument

HEADERS_MAX: Final = 32
BODY_BYTES_MAX: Final = 2**20
VARIABLES_MAX: Final = 32

_TOKEN: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"  # noqa: S105  # RFC 9110's word for the name of a header.
_OF_THE_CONNECTION: Final = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
_SECRET: Final = re.compile(r"\{secret:([A-Z][A-Z0-9_]{0,63})\}")
_WHOLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_ACCEPTED: Final[dict[str, frozenset[PortType]]] = {
    "text": frozenset({PortType.TEXT}),
    "number": frozenset({PortType.NUMBER}),
    "boolean": frozenset({PortType.BOOLEAN}),
    "any": ANYTHING,
}


class HttpParams(NodeParams):
    """Parameters of an http node."""

    protected = frozenset({"method", "url", "headers", "body", "parameters"})

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(default="GET", description="The request's method.")
    url: Annotated[str, AfterValidator(checked_url)] = Field(
        description="The URL. {name} in its path or query is an input port of the node, percent-encoded. Its host must be in "
        "PENSTOCK_GATEWAY_HTTP_HOSTS."
    )
    headers: dict[Annotated[str, Field(pattern=_TOKEN)], str] = Field(
        default={},
        max_length=HEADERS_MAX,
        description="Headers. {name} is an input port; {secret:NAME} is the gateway's variable PENSTOCK_SECRET_NAME.",
    )
    body: Any = Field(
        default=None,
        description='JSON to send. A text "{name}" in it is the value of that input port as JSON; in a longer one {name} '
        "is its text, and {{ and }} are braces. Left out or null: no body.",
    )
    parameters: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Literal["text", "number", "boolean", "any"]] = Field(
        default={}, max_length=VARIABLES_MAX, description="Types of input ports. One that is not named here takes anything."
    )
    timeout_s: float | None = Field(
        default=None, gt=0, le=600, description="Longest wait for the answer. Left out, and at most: the gateway's."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "HttpParams":
        message = _fault(self)
        if message is not None:
            raise ValueError(message)
        return self


def _fault(params: HttpParams) -> str | None:
    kept = sorted(name for name in params.headers if name.lower() in _OF_THE_CONNECTION)
    if kept:
        return f"the header {kept[0]!r} is the connection's own and cannot be set"
    if params.body is not None and params.method in {"GET", "HEAD"}:
        return f"a {params.method} request has no body"
    if is_deeper(params.body, DEPTH_MAX):
        return f"the body is nested more than {DEPTH_MAX} deep"
    variables = _variables(params)
    if len(variables) > VARIABLES_MAX:
        return f"has {len(variables)} variables; at most {VARIABLES_MAX}"
    unknown = sorted(set(params.parameters) - set(variables))
    return f"no variable has the name {unknown[0]!r}" if unknown else None


def _variables(params: HttpParams) -> tuple[str, ...]:
    found = list(UrlTemplate(params.url).variables)
    for text in (*map(_without_secrets, params.headers.values()), *_texts(params.body)):
        found += Template(text).variables
    return tuple(dict.fromkeys(found))


def _without_secrets(text: str) -> str:
    return _SECRET.sub("", text)


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _texts(each)


def _ports(params: HttpParams) -> Ports:
    return Ports(
        inputs=tuple(
            InputPort(name=name, accepts=_ACCEPTED[params.parameters.get(name, "any")], variable=True)
            for name in _variables(params)
        ),
        outputs=(
            OutputPort(name="status", type=PortType.NUMBER),
            OutputPort(name="text", type=PortType.TEXT, is_main=True),
            OutputPort(name="json", type=PortType.JSON),
        ),
    )


def _work(params: HttpParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # Its place is in its errors.
    url, web = UrlTemplate(params.url), backends.web
    headers = {name: _header(text, web) for name, text in params.headers.items()}
    body = None if params.body is None else _filler(params.body)

    async def ask(inputs: Inputs, run: Run) -> Outputs:  # noqa: ARG001  # It needs nothing of the run.
        texts = {name: as_text(value) for name, value in inputs.items()}
        request = WebRequest(
            method=params.method,
            url=url.render(texts),
            headers=({} if body is None else {"content-type": "application/json"})
            | {name.lower(): render(texts) for name, render in headers.items()},
            body=None if body is None else _encoded(body(inputs)),
            timeout_s=params.timeout_s,
        )
        answer = await web.send(request)
        return {"status": answer.status, "text": answer.text, "json": _json(answer)}

    return Effect(ask)


def _header(text: str, web: Web) -> Callable[[Mapping[str, str]], str]:
    """How a header's value is written. Secrets are asked for at each request, and stand in no flow."""
    parts = _SECRET.split(text)
    templates = [Template(part) for part in parts[::2]]

    def render(values: Mapping[str, str]) -> str:
        written = [template.render(values) for template in templates]
        secrets = [web.secret(name) for name in parts[1::2]]
        return "".join(piece for pair in zip(written, [*secrets, ""], strict=True) for piece in pair)

    return render


def _filler(part: Any) -> Callable[[Inputs], Any]:
    """How a part of the body is made of the node's inputs."""
    if isinstance(part, str):
        return _text_filler(part)
    if isinstance(part, dict):
        members = {name: _filler(each) for name, each in part.items()}
        return lambda inputs: {name: fill(inputs) for name, fill in members.items()}
    if isinstance(part, list):
        items = [_filler(each) for each in part]
        return lambda inputs: [fill(inputs) for fill in items]
    return lambda inputs: part  # noqa: ARG005  # It is the same whatever they are.


def _text_filler(text: str) -> Callable[[Inputs], Any]:
    whole = _WHOLE.fullmatch(text)
    if whole:
        name = whole[1]
        return lambda inputs: as_json(inputs[name])
    template = Template(text)
    return lambda inputs: template.render({name: as_text(inputs[name]) for name in template.variables})


def _encoded(body: Any) -> bytes:
    encoded = orjson.dumps(body)
    if len(encoded) > BODY_BYTES_MAX:
        raise InvalidArgument(f"the body of the request would have {len(encoded)} bytes; at most {BODY_BYTES_MAX}")
    return encoded


def _json(answer: WebAnswer) -> Any:
    """The answer's JSON; null where it is none, and where it is nested too deep to be carried on."""
    if "json" not in answer.headers.get("content-type", "") and answer.text[:1] not in {"{", "["}:
        return None
    try:
        value = orjson.loads(answer.text)
    except orjson.JSONDecodeError:
        return None
    return None if is_deeper(value, DEPTH_MAX) else value


HTTP: Final = NodeSpec(
    summary="A request to an HTTP server that is allowed, and its answer.", params=HttpParams, ports=_ports, work=_work
)
