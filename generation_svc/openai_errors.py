"""What an OpenAI-compatible endpoint's refusals are in our tree. Pure: status, headers and body in, an error out.

When the endpoint says when to come back (Retry-After), the error has it as retry_after_s and the endpoint's own words among
its metadata, by which it can be told from a guess of ours.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any, Final

import orjson

from penstock.errors import (
    BackendUnavailable,
    FailedPrecondition,
    InvalidArgument,
    ModelNotFound,
    Overloaded,
    PenstockError,
    PromptTooLong,
)

RETRY_AFTER_S_DEFAULT: Final = 1.0
RETRY_AFTER_S_MAX: Final = 3600.0
RETRY_AFTER_SAID: Final = "upstream_retry_after"
_MESSAGE_CHARACTERS_MAX: Final = 500

# What endpoints say of a prompt that does not fit: OpenAI, vLLM, llama.cpp, SGLang, TGI.
_FLAGS: Final = re.IGNORECASE | re.VERBOSE
_TOO_LONG: Final = re.compile(
    r"context.{0,12}length | context.(window|size) | maximum.{0,20}length | max_model_len | longer.than.the.model", _FLAGS
)
_WINDOW: Final = re.compile(
    r"(?:context[ ](?:length|window|size) | maximum[\w ]*length | max_model_len) \D{0,40}? (\d{2,})", _FLAGS
)
_PROMPT_TOKENS: Final = re.compile(r"(?:prompt|input|messages) \D{0,60}? (\d+) [ ](?:input[ ])?tokens", _FLAGS)


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
    """The error of an HTTP answer that is not 200."""
    said = _said(body)
    asked_s = _retry_after_s(headers)
    facts = {"upstream_status": str(status)} | ({} if asked_s is None else {RETRY_AFTER_SAID: headers["Retry-After"][:64]})
    if status in {401, 403}:
        message = f"the endpoint refuses our key ({status}): set PENSTOCK_GENERATION_OPENAI_API_KEY; it said: {said}"
        return FailedPrecondition(message, metadata=facts)
    if status == 404:
        return ModelNotFound(f"the endpoint has no such model or path: {said}", metadata=facts)
    if status == 429:
        message = f"the endpoint is overloaded or its quota is used up: {said}"
        return Overloaded(message, metadata=facts, retry_after_s=RETRY_AFTER_S_DEFAULT if asked_s is None else asked_s)
    if 400 <= status < 500 and status != 408:
        if _TOO_LONG.search(said) or b"context_length_exceeded" in body:
            return PromptTooLong(f"the endpoint's model cannot hold the prompt: {said}", metadata={**facts, **_numbers(said)})
        return InvalidArgument(f"the endpoint refuses the request: {said}", metadata=facts)
    message = f"the endpoint answered {status}: {said}"
    return BackendUnavailable(message, metadata={**facts, "service": "openai"}, retry_after_s=asked_s)


def error_in_stream(error: Any) -> PenstockError:
    """The error of an event that carries one in place of a choice, as vLLM sends when it fails in the middle."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return error_of(status, {}, orjson.dumps({"error": error}))


def not_the_dialect() -> PenstockError:
    """The error of an answer that is something else than OpenAI's API gives."""
    return BackendUnavailable("the endpoint did not answer in OpenAI's dialect; is the base URL right?")


def _said(body: bytes) -> str:
    """The message of OpenAI's error shape, or of its imitations, or the beginning of whatever it is."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:_MESSAGE_CHARACTERS_MAX].decode(errors="replace").strip() or "nothing"
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(message or parsed)[:_MESSAGE_CHARACTERS_MAX]


def _numbers(said: str) -> dict[str, str]:
    window, prompt = _WINDOW.search(said), _PROMPT_TOKENS.search(said)
    found = {
        "context_window": window.group(1) if window else "",
        "prompt_tokens": prompt.group(1) if prompt else "",
    }
    return {name: number for name, number in found.items() if number}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, which it gives as such or as an HTTP date. None where it is missing or neither."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_S_MAX)
