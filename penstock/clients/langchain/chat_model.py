"""A model of a Penstock generation service as a LangChain chat model."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InputTokenDetails,
    SystemMessage,
    UsageMetadata,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from penstock.clients.background import BACKGROUND
from penstock.clients.generation import Answer, Delta, Finished, GenerationClient, Message, Role, Sampling, Usage
from penstock.clients.langchain.connected import CONFIG, Connected
from penstock.errors import InvalidArgument


class PenstockChatModel(Connected, BaseChatModel):
    """Answers conversations of text with the service's `model`.

    Sampling fields left at None are the engine's defaults; `bind` or a call's keywords set them for one call. The answer's
    `response_metadata` has finish_reason ("stop" or "length"), model_name, and matched_stop where a stop text ended it;
    its `usage_metadata` the tokens. Raises ModelNotFound, PromptTooLong, Overloaded, BackendUnavailable, and InvalidArgument
    for what the service does not do: tools, images, other roles.
    """

    model_config = CONFIG
    client_class = GenerationClient

    target: str = "127.0.0.1:50052"
    model: str = "default"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None
    streaming: bool = False
    """Whether `invoke` streams inside, so that callbacks hear of tokens as they come."""

    @property
    def _llm_type(self) -> str:
        return "penstock"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        sampling = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        return {"target": self.target, "model": self.model, **sampling, "stop": self.stop}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop=stop or self.stop, **kwargs), "ls_provider": "penstock"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # The base reports the run.
        **kwargs: Any,
    ) -> ChatResult:
        return BACKGROUND.run(self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002  # The base reports the run.
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, stop, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in BACKGROUND.iterate(self._chunks(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._chunks(messages, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _answer(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> ChatResult:
        client: GenerationClient = self._here()
        answer = await client.generate(**self._request(messages, stop, options))
        message = AIMessage(
            content=answer.text, response_metadata=_response_metadata(answer), usage_metadata=_usage_metadata(answer.usage)
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        client: GenerationClient = self._here()
        async with aclosing(client.stream(**self._request(messages, stop, options))) as events:
            async for event in events:
                yield ChatGenerationChunk(message=_message_chunk(event))

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of GenerationClient's calls."""
        options = {name: value for name, value in options.items() if name != "stream"}  # LangChain's own.
        if unknown := options.keys() - {"model", "timeout_s", *_SAMPLING_FIELDS}:
            raise InvalidArgument(f"generation.v1 does not take {', '.join(sorted(unknown))}; remove it from the call or bind")
        sampling = {name: options.get(name, getattr(self, name)) for name in _SAMPLING_FIELDS}
        stop_texts = self.stop if stop is None else stop
        return {
            "messages": [_message(message) for message in messages],
            "model": options.get("model", self.model),
            "sampling": Sampling(**sampling, stop=tuple(stop_texts or ())),
            "timeout_s": options.get("timeout_s", self.timeout_s),
        }


_SAMPLING_FIELDS: Final = ("max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
_CHAT_ROLES: Final[dict[str, Role]] = {"system": "system", "user": "user", "assistant": "assistant"}


def _message(message: BaseMessage) -> Message:
    return Message(role=_role(message), content=_text(message))


def _role(message: BaseMessage) -> Role:
    match message:
        case SystemMessage():
            return "system"
        case HumanMessage():
            return "user"
        case AIMessage():
            return "assistant"
        case ChatMessage() if message.role in _CHAT_ROLES:
            return _CHAT_ROLES[message.role]
    raise InvalidArgument(f"generation.v1 has no {message.type!r} messages, only those of system, user and assistant")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, list):
        kinds = {block.get("type", "") for block in message.content if isinstance(block, dict)} - {"text"}
        if kinds:
            raise InvalidArgument(f"generation.v1 takes text alone, not {', '.join(sorted(kinds))} blocks")
    return str(message.text)


def _message_chunk(event: Delta | Finished) -> AIMessageChunk:
    if isinstance(event, Delta):
        return AIMessageChunk(content=event.text)
    return AIMessageChunk(
        content="",
        response_metadata=_response_metadata(event),
        usage_metadata=_usage_metadata(event.usage),
        chunk_position="last",
    )


def _response_metadata(ended: Answer | Finished) -> dict[str, Any]:
    metadata = {"finish_reason": ended.finish_reason, "model_name": ended.model, "model_provider": "penstock"}
    return {**metadata, "matched_stop": ended.matched_stop} if ended.matched_stop else metadata


def _usage_metadata(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )
