"""A model of a Penstock generation service as a LangChain chat model."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from penstock.clients.background import BACKGROUND
from penstock.clients.generation import (
    Alternative,
    Answer,
    Delta,
    Finished,
    GenerationClient,
    LogprobOptions,
    Sampling,
    StructuredOutput,
)
from penstock.clients.langchain.bound_tools import BoundTools, bound_tools, chosen_name
from penstock.clients.langchain.chat_messages import answer_message, last_chunk, text_chunk, told, turns
from penstock.clients.langchain.connected import CONFIG, Connected
from penstock.clients.langchain.retrying import retrying, retrying_stream
from penstock.clients.langchain.structured import Method, binding, with_raw
from penstock.errors import InvalidArgument
from penstock.tool_actions import ActionCall, AnswerText, read_action


class PenstockChatModel(Connected, BaseChatModel):
    """Answers conversations of text with the service's `model`.

    Fields left at None are the engine's defaults; `bind` or a call's keywords set them for one call. The answer's
    `response_metadata` has finish_reason ("stop", "length" or "tool_calls"), model_name, matched_stop where a stop text ended
    it, and logprobs where they were asked for; its `usage_metadata` the tokens. With `n` above 1 `generate` gives several.

    `bind_tools` and `with_structured_output` hold the answer to a JSON Schema, which the model's engine must be able to do
    (Model.features has "json_schema"). Tools are told to the model in a system message, and called in the form of
    penstock.tool_actions. Raises ModelNotFound, PromptTooLong, Overloaded, BackendUnavailable, UnsupportedFeature, and
    InvalidArgument for what the service does not do: images, other roles.
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
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    include_stop: bool | None = None
    stop: list[str] | None = None
    n: int = Field(default=1, ge=1)
    """How many answers `generate` gives; a stream has one."""
    logprobs: LogprobOptions | None = None
    structured_output: StructuredOutput | None = None
    """A form that every answer must have."""
    adapter: str = ""
    priority: int = 0
    cache_salt: str = ""
    max_retries: int | None = Field(default=None, ge=0, le=100)
    """How often an answer is asked for again where the service has no room or cannot be reached. None: not at all, beside the
    moment for which the connection itself tries."""
    streaming: bool = False
    """Whether `invoke` streams inside, so that callbacks hear of tokens as they come."""

    @property
    def _llm_type(self) -> str:
        return "penstock"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        named = ("target", "model", *_SAMPLING_FIELDS, "stop", "n", "adapter")
        return {**{name: getattr(self, name) for name in named}, "structured_output": repr(self.structured_output)}

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

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Lets the model call tools: it may ("auto"), must not ("none"), must call some ("any"), or the one that is named."""
        chosen = chosen_name(tool_choice)
        bound_tools(tools, chosen, parallel=parallel_tool_calls)  # Tells here, and not with the first call, what is wrong.
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=chosen, parallel_tool_calls=parallel_tool_calls, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers by `schema`: a dict, or an instance where it is a pydantic class.

        "json_schema" holds the answer to the schema, "json_mode" to any JSON object (tell the model which), and
        "function_calling" has it call a tool of that schema, which also tells the model of it in words.
        """
        kwargs.pop("strict", None)  # It always is.
        bound, parser = binding(schema, method)
        model = self.bind(**bound, **kwargs)
        return with_raw(model, parser) if include_raw else model | parser

    async def _answer(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> ChatResult:
        client: GenerationClient = self._here()
        tools = _tools(options)
        request = self._request(messages, stop, options, tools)
        answer = await retrying(lambda: client.generate(**request), self.max_retries or 0)
        answers: list[Answer | Alternative] = [answer, *answer.alternatives]
        made = [answer_message(each, answer, read_action(each.text) if tools else None) for each in answers]
        return ChatResult(generations=[ChatGeneration(message=message) for message in made])

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        client: GenerationClient = self._here()
        tools = _tools(options)
        request = self._request(messages, stop, options, tools)
        if request["n"] > 1:
            raise InvalidArgument("a stream has one answer; leave n out, or ask for several with generate")
        reading = _Reading() if tools else None
        async with aclosing(retrying_stream(lambda: client.stream(**request), self.max_retries or 0)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    calls, unsaid = reading.rest() if reading else ((), "")
                    if unsaid:
                        yield ChatGenerationChunk(message=text_chunk(unsaid))
                    yield ChatGenerationChunk(message=last_chunk(event, calls))
                else:
                    text = reading.add(event) if reading else event.text
                    if text or not reading:
                        yield ChatGenerationChunk(message=text_chunk(text, event.logprobs))

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any], tools: BoundTools | None
    ) -> dict[str, Any]:
        """The arguments of GenerationClient's calls."""
        given = {name: value for name, value in options.items() if name not in _NOT_ASKED}
        if unknown := given.keys() - _ASKED:
            raise InvalidArgument(f"generation.v1 does not take {', '.join(sorted(unknown))}; remove it from the call or bind")
        own = {name: given.get(name, getattr(self, name)) for name in _ASKED}
        form = _form(own["structured_output"])
        said = turns(messages)
        if tools is not None:
            if form is not None:
                raise InvalidArgument("tools and structured_output both say which form the answer has; leave one out")
            form, said = StructuredOutput(json_schema=tools.schema), told(said, tools.instructions)
        stop_texts = self.stop if stop is None else stop
        more = {"logprobs": _logprobs(own["logprobs"]), "structured_output": form}
        return {
            "messages": said,
            "model": own["model"],
            "sampling": Sampling(**{name: own[name] for name in _SAMPLING_FIELDS}, stop=tuple(stop_texts or ())),
            "timeout_s": own["timeout_s"],
            "n": own["n"],
            **{name: value for name, value in more.items() if value is not None},
            **{name: own[name] for name in ("adapter", "priority", "cache_salt") if own[name]},
        }


_SAMPLING_FIELDS: Final = tuple(each.name for each in fields(Sampling) if each.name != "stop")
_ASKED: Final = frozenset(
    {"model", "timeout_s", "n", "logprobs", "structured_output", "adapter", "priority", "cache_salt", *_SAMPLING_FIELDS}
)
_NOT_ASKED: Final = frozenset({"stream", "tools", "tool_choice", "parallel_tool_calls"})
"""Keywords that are LangChain's own, or that become a form."""


class _Reading:
    """Reads an answer that is an action while it comes."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._answer = AnswerText()
        self._has_said = False

    def add(self, delta: Delta) -> str:
        """The text that a piece adds to what is said."""
        self._texts.append(delta.text)
        text = self._answer.add(delta.text)
        self._has_said = self._has_said or bool(text)
        return text

    def rest(self) -> tuple[tuple[ActionCall, ...], str]:
        """The calls that it came to, and the text that was not said while it came."""
        action = read_action("".join(self._texts))
        return action.calls, "" if self._has_said else action.text


def _tools(options: Mapping[str, Any]) -> BoundTools | None:
    parallel = options.get("parallel_tool_calls") is not False
    return bound_tools(options.get("tools"), chosen_name(options.get("tool_choice")), parallel=parallel)


def _form(form: StructuredOutput | Mapping[str, Any] | None) -> StructuredOutput | None:
    if form is None or isinstance(form, StructuredOutput):
        return form
    known = {each.name for each in fields(StructuredOutput)}
    if not isinstance(form, Mapping) or form.keys() - known:
        raise InvalidArgument(f"structured_output has one of {', '.join(sorted(known))}; not {form!r}")
    return StructuredOutput(**form)


def _logprobs(options: LogprobOptions | Mapping[str, Any] | bool | None) -> LogprobOptions | None:
    if options is None or options is False:
        return None
    if isinstance(options, LogprobOptions):
        return options
    if options is True:
        return LogprobOptions()
    if not isinstance(options, Mapping) or options.keys() - {"top", "tokens"}:
        raise InvalidArgument(f"logprobs is true, or has top or tokens; not {options!r}")
    return LogprobOptions(top=options.get("top", 0), tokens=tuple(options.get("tokens", ())))
