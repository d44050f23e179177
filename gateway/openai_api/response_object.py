"""The response of OpenAI's Responses API: what was asked said again, and the items of the answer."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.openai_api.asking import EXTENSION
from gateway.openai_api.running import Answer

_SAID_AGAIN: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Fields of a request that its response has as well, with what stands there where the request left them out."""


class ResponseObject:
    """One response, whose fields change as it is made."""

    def __init__(self, response_id: str, model: str, given: Mapping[str, Any]) -> None:
        self.id = response_id
        self._common = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "background": False,
            "reasoning": {"effort": None, "summary": None},
            "top_logprobs": 0,
            **{name: default if given.get(name) is None else given[name] for name, default in _SAID_AGAIN.items()},
        }

    def begun(self) -> dict[str, Any]:
        """As long as it is being made."""
        return self._with("in_progress", [])

    def ended(self, answer: Answer, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """When all is said."""
        cut = answer.finish_reason == "length"
        response = self._with("incomplete" if cut else "completed", items)
        spent = answer.response.usage
        response["usage"] = {
            "input_tokens": spent.input_tokens,
            "input_tokens_details": {"cached_tokens": spent.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": spent.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": spent.input_tokens + spent.output_tokens,
        }
        if cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            response["completed_at"] = int(time.time())
        response[EXTENSION] = answer.extension()
        return response

    def failed(self, error: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """When it could not be made to its end."""
        return {**self._with("failed", items), "error": error}

    def items(self, answer: Answer) -> list[dict[str, Any]]:
        """What the answer says: a message, and calls of the caller's tools."""
        calls = [call_item(*each) for each in answer.calls]
        if calls and not answer.text:
            return calls
        return [message_item(message_id(), answer.text, cut=answer.finish_reason == "length"), *calls]

    def _with(self, status: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ended = {"error": None, "incomplete_details": None, "completed_at": None, "usage": None}
        return {**self._common, **ended, "status": status, "output": items}


def message_id() -> str:
    """A new message's id."""
    return f"msg_{secrets.token_hex(16)}"


def text_part(text: str) -> dict[str, Any]:
    """A text as a part of a message."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def message_item(item_id: str, text: str, *, cut: bool) -> dict[str, Any]:
    """A message that is complete, or was `cut` at its most tokens."""
    status = "incomplete" if cut else "completed"
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": [text_part(text)]}


def call_item(name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(16)}",
        "call_id": f"call_{secrets.token_hex(12)}",
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }
