"""What goes wrong, in LangFlow's words: {"detail": ...} and its statuses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from penstock.errors import (
    DeadlineExceeded,
    FlowNotFound,
    Internal,
    InvalidArgument,
    MalformedRequest,
    NotReady,
    Overloaded,
    PenstockError,
    PermissionDenied,
    Unauthenticated,
)
from penstock.transcoding.exchange import Headers

NO_KEY: Final = "An API key must be passed as query or header"
WRONG_KEY: Final = "Invalid or missing API key"
PROTECTED: Final = "The field is protected and keeps the value set by the flow author."
TWICE_CHAT: Final = "If you pass an input_value to the chat input, you cannot pass a tweak with the same name."
TWICE_TEXT: Final = "If you pass an input_value to the text input, you cannot pass a tweak with the same name."
EMPTY_WEBHOOK: Final = "Request body is empty. You should provide a JSON payload containing the flow ID."


@dataclass(slots=True)
class Refused(Exception):
    """A request that is not run. `body` is the whole answer."""

    status: int
    body: Mapping[str, Any]


def refused(status: int, detail: Any) -> Refused:
    """A refusal as LangFlow words nearly all of them."""
    return Refused(status, {"detail": detail})


def refused_tweaks(fields: list[str], reason: str = PROTECTED) -> Refused:
    """Tweaks of fields that are the author's alone."""
    return refused(422, {"error": "Refused tweaks", "code": "TWEAKS_REFUSED", "message": reason, "fields": fields})


def told(error: PenstockError, *, has_key: bool, name: str = "") -> Refused:
    """An error as /api/v1 says it. `name` is the flow's that was asked for."""
    if isinstance(error, Unauthenticated):
        return refused(403, WRONG_KEY if has_key else NO_KEY)
    if isinstance(error, FlowNotFound) and "node" not in error.metadata:
        return refused(404, f"Flow identifier {name[:256]} not found")
    if is_failure(error):
        return refused(500, _failure(error))
    return refused(_status(error), error.message)


def is_failure(error: PenstockError) -> bool:
    """Whether the flow has failed, and not the request for it: a component raised, or what it calls did."""
    if isinstance(error, Overloaded | NotReady | DeadlineExceeded | PermissionDenied):
        return False
    return "node" in error.metadata or isinstance(error, Internal)


def failure_text(error: PenstockError, component: str) -> str:
    """What LangFlow says of a component that failed."""
    place = f"Error building Component {component}: \n\n" if component else ""
    return f"Error running graph: {place}{error.message}"


def _failure(error: PenstockError) -> str:
    """The detail of a 500, which is a text of JSON."""
    text = failure_text(error, error.metadata.get("component", error.metadata.get("node", "")))
    said = {"message": text, "traceback": None, "description": None, "code": None, "suggestion": None}
    return orjson.dumps(said).decode()


def _status(error: PenstockError) -> int:
    if isinstance(error, MalformedRequest):
        return 422
    if isinstance(error, InvalidArgument):
        return 400
    return error.code.http_status


def retry_headers(error: PenstockError) -> Headers:
    """When to try again, where the error says so."""
    if error.retry_after_s is None:
        return ()
    return ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
