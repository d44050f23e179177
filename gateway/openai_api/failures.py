"""Errors as OpenAI's API words them: {"error": {"message", "type", "param", "code"}}.

`code` is OpenAI's where it has one, which its clients look for; else our reason in lower case.
"""

import math
import re
from typing import Any, Final

from penstock.errors import BudgetExceeded, Code, PenstockError
from penstock.transcoding.exchange import Exchange
from penstock.transcoding.rendering import dump
from penstock.wire import to_status

_TYPES: Final = {
    Code.UNAUTHENTICATED: "invalid_request_error",
    Code.PERMISSION_DENIED: "permission_error",
    Code.RESOURCE_EXHAUSTED: "rate_limit_error",
}
_CODES: Final = {
    "UNAUTHENTICATED": "invalid_api_key",
    "FLOW_NOT_FOUND": "model_not_found",
    "PROMPT_TOO_LONG": "context_length_exceeded",
    "OVERLOADED": "rate_limit_exceeded",
    "INTERNAL": "server_error",
    "MALFORMED_REQUEST": "invalid_json",
}
_ABOUT_WHAT_WAS_SAID: Final = frozenset({"EMPTY_TEXT", "PROMPT_TOO_LONG"})
_WORTHLESS: Final = (BudgetExceeded,)
"""OpenAI's clients try a 429 again by themselves; what would fail again says so."""
_SAMPLING: Final = re.compile(r"sampling\.(?P<name>.+)")


def error_object(error: PenstockError, said: str = "messages") -> dict[str, Any]:
    """What stands under "error". `said` is the parameter that has the conversation."""
    return {
        "message": to_status(error).message,  # Which keeps the inside of a defect to itself.
        "type": _TYPES.get(error.code, "invalid_request_error" if error.code.http_status < 500 else "server_error"),
        "param": _param(error, said),
        "code": error.metadata.get("code") or _CODES.get(error.reason, error.reason.lower()),
    }


async def fail(exchange: Exchange, error: PenstockError, *, said: str = "messages") -> None:
    """Answers with an error. Raises ClientLeft."""
    if exchange.started:
        await exchange.fail(error)  # Which can only log it.
        return
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    if isinstance(error, _WORTHLESS):
        headers.append((b"x-should-retry", b"false"))
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if "allow" in error.metadata:
        headers.append((b"allow", error.metadata["allow"].encode()))
    await exchange.answer(error.code.http_status, dump({"error": error_object(error, said)}), headers)


def _param(error: PenstockError, said: str) -> str | None:
    if error.reason in _ABOUT_WHAT_WAS_SAID:
        return said
    if error.reason == "FLOW_NOT_FOUND":
        return "model"
    field = next((fault.field for fault in error.violations if fault.field), "")
    if field.startswith("inputs."):
        return f"penstock.{field}"
    found = _SAMPLING.fullmatch(field)
    return (found["name"] if found else field) or None
