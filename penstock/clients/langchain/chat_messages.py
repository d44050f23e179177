"""Between LangChain's messages and those of the generation client."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InputTokenDetails,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UsageMetadata,
)
from langchain_core.messages.tool import tool_call_chunk

from penstock.clients.generation import Alternative, Answer, Finished, Message, Role, TokenLogprob, Usage
from penstock.errors import InvalidArgument
from penstock.tool_actions import Action, ActionCall, written_action

_CHAT_ROLES: Final[dict[str, Role]] = {"system": "system", "user": "user", "assistant": "assistant"}
_CALLS: Final = frozenset({"tool_use", "tool_call", "function_call", "reasoning", "thinking"})
"""Blocks of a model's message that say what its tool calls say as well, or what it thought."""


def turns(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation. Raises InvalidArgument for what generation.v1 does not take: images, other roles."""
    called = {str(call["id"]): call["name"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls}
    return [_turn(message, called) for message in messages]


def told(messages: Sequence[Message], instructions: str) -> list[Message]:
    """The conversation with more that stands above it."""
    if messages and messages[0].role == "system":
        return [Message(role="system", content=f"{messages[0].content}\n\n{instructions}"), *messages[1:]]
    return [Message(role="system", content=instructions), *messages]


def _turn(message: BaseMessage, called: Mapping[str, str]) -> Message:
    match message:
        case SystemMessage():
            return Message(role="system", content=_text(message))
        case HumanMessage():
            return Message(role="user", content=_text(message))
        case AIMessage():
            return Message(role="assistant", content=_said(message))
        case ToolMessage():
            # Chat templates here know three roles; what a tool gave is said to the model from outside.
            name = message.name or called.get(message.tool_call_id, "tool")
            how = "failed" if message.status == "error" else "answered"
            return Message(role="user", content=f"{name} {how}:\n{_text(message)}")
        case ChatMessage() if message.role in _CHAT_ROLES:
            return Message(role=_CHAT_ROLES[message.role], content=_text(message))
    raise InvalidArgument(f"generation.v1 has no {message.type!r} messages, only those of system, user, assistant and tools")


def _said(message: AIMessage) -> str:
    text = _text(message, passed_over=_CALLS)
    if not message.tool_calls:
        return text
    calls = tuple(ActionCall(tool=each["name"], arguments=each["args"]) for each in message.tool_calls)
    return "\n".join(filter(None, (text, written_action(Action(calls=calls)))))


def _text(message: BaseMessage, *, passed_over: frozenset[str] = frozenset()) -> str:
    if isinstance(message.content, list):
        kinds = {block.get("type", "") for block in message.content if isinstance(block, dict)} - {"text"} - passed_over
        if kinds:
            raise InvalidArgument(f"generation.v1 takes text alone, not {', '.join(sorted(kinds))} blocks")
    return str(message.text)


def answer_message(answer: Answer | Alternative, whole: Answer, action: Action | None) -> AIMessage:
    """An answer, or one of several to the `whole`, which has the usage; `action` where tools were bound."""
    metadata = response_metadata(answer, whole.model, called=bool(action and action.calls))
    if answer.logprobs:
        metadata["logprobs"] = {"content": logprob_content(answer.logprobs)}
    usage = usage_metadata(whole.usage) if answer is whole else None
    if action is None:
        return AIMessage(content=answer.text, response_metadata=metadata, usage_metadata=usage)
    calls = [ToolCall(name=each.tool, args=dict(each.arguments), id=_call_id(), type="tool_call") for each in action.calls]
    return AIMessage(content=action.text, tool_calls=calls, response_metadata=metadata, usage_metadata=usage)


def text_chunk(text: str, logprobs: Sequence[TokenLogprob] = ()) -> AIMessageChunk:
    """More of an answer."""
    metadata = {"logprobs": {"content": logprob_content(logprobs)}} if logprobs else {}
    return AIMessageChunk(content=text, response_metadata=metadata)


def last_chunk(finished: Finished, calls: Sequence[ActionCall]) -> AIMessageChunk:
    """How an answer ended, and the tool calls that it came to."""
    return AIMessageChunk(
        content="",
        tool_call_chunks=[
            tool_call_chunk(name=each.tool, args=orjson.dumps(dict(each.arguments)).decode(), id=_call_id(), index=index)
            for index, each in enumerate(calls)
        ],
        response_metadata=response_metadata(finished, finished.model, called=bool(calls)),
        usage_metadata=usage_metadata(finished.usage),
        chunk_position="last",
    )


def response_metadata(ended: Answer | Alternative | Finished, model: str, *, called: bool) -> dict[str, Any]:
    """Why an answer ended, and which model gave it."""
    reason = "tool_calls" if called else ended.finish_reason
    metadata = {"finish_reason": reason, "model_name": model, "model_provider": "penstock"}
    return {**metadata, "matched_stop": ended.matched_stop} if ended.matched_stop else metadata


def logprob_content(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Logarithms of probabilities in the form in which OpenAI's models have them in LangChain."""
    return [
        {"token": each.token, "logprob": each.logprob, "top_logprobs": [*map(_top, each.top)], "token_id": each.token_id}
        for each in logprobs
    ]


def _top(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "token_id": token.token_id}


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Tokens, as LangChain counts them."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
