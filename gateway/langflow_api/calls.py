"""A request of LangFlow's API on its way into the service: whose key it shows, and the calls that it makes.

LangFlow reads a key from x-api-key, in the query or the header, and never from authorization: what clients put there, such as
the API key that OpenAI's own client asks for, is often made up.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.langflow_api.wording import Refused, retry_headers, told
from penstock.errors import InvalidArgument, MalformedRequest, PenstockError
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.context import HttpContext
from penstock.transcoding.dialect import DialectCall

RUN: Final = "/penstock.flow.v1.RunService/RunFlow"
STREAM: Final = "/penstock.flow.v1.RunService/StreamFlow"
GET: Final = "/penstock.flow.v1.FlowService/GetFlow"
LIST: Final = "/penstock.flow.v1.FlowService/ListFlows"
CREATE: Final = "/penstock.flow.v1.FlowService/CreateFlow"
DELETE: Final = "/penstock.flow.v1.FlowService/DeleteFlow"

KEY: Final = "x-api-key"
VARIABLE: Final = "x-langflow-global-var-"

Work = Callable[[DialectCall], Awaitable[None]]


def keyed(work: Work) -> Work:
    """A handler whose calls are made with LangFlow's key, and which words refusals."""

    async def handle(call: DialectCall) -> None:
        headers = shown(call.headers, call.query)
        if headers is not call.headers:
            call.context = HttpContext(headers, deadline_s=call.context.time_remaining())
        try:
            await work(call)
        except Refused as refusal:
            await call.answer(refusal.status, refusal.body)
        except PenstockError as error:
            if call.exchange.started:
                raise
            said = told(error, has_key=has_key(call), name=call.parts[0] if call.parts else "")
            await call.answer(said.status, said.body, retry_headers(error))

    return handle


def shown(headers: Mapping[str, str], query: Mapping[str, str]) -> Mapping[str, str]:
    """The headers with the key of the query, without authorization; the same where nothing changes."""
    key = query.get(KEY)
    if not key and "authorization" not in headers:
        return headers
    changed = {name: value for name, value in headers.items() if name != "authorization"}
    return changed | {KEY: key} if key else changed


def has_key(call: DialectCall) -> bool:
    """Whether the request shows a key at all."""
    return bool(call.context.metadata().get(KEY))


def variables(headers: Mapping[str, str]) -> dict[str, str]:
    """Global variables of one request, by their names in capitals, as headers cannot say otherwise."""
    return {name[len(VARIABLE) :].upper(): value for name, value in headers.items() if name.startswith(VARIABLE)}


class Detached:
    """A call that goes on when the request that made it has been answered: the same key, and a time of its own."""

    def __init__(self, call: DialectCall, deadline_s: float) -> None:
        self._call = call
        self._metadata = dict(call.context.metadata())
        self._deadline_s = deadline_s

    def call(self) -> DialectCall:
        """The call, its time beginning now. Nothing can be answered to it."""
        self._call.context = HttpContext(self._metadata, deadline_s=self._deadline_s)
        return self._call


async def refuse(call: DialectCall, refusal: Refused) -> None:
    """Refuses a request after its key has been looked at: a stranger is not told what is wrong with what he sent.

    Raises the refusal, or what the key deserves.
    """
    error = InvalidArgument(str(refusal.body.get("detail", refusal.body))[:1000])
    try:
        await call.unary(RUN, error)
    except InvalidArgument as raised:
        if raised is not error:
            raise
    raise refusal


async def known_flow(call: DialectCall, name: str) -> Any:
    """The flow of this id, as a caller who may read flows sees it. Raises FlowNotFound, and what the key deserves."""
    return (await call.unary(GET, flow_pb2.GetFlowRequest(name=f"flows/{name}"))).flow


def check_json(call: DialectCall) -> None:
    """Raises MalformedRequest for a body that is not plain JSON by its headers, as another site's form would send one."""
    if call.body:
        call.exchange.check_json()


def check_form(call: DialectCall) -> None:
    """Raises MalformedRequest for a form that a browser sends on behalf of another site."""
    if "origin" in call.headers:
        raise MalformedRequest("a form from a page of another site is not taken; send JSON")
