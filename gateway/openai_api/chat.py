"""POST /v1/chat/completions."""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.openai_api.asking import (
    EXTENSION,
    MESSAGES_MAX,
    SAMPLING_PARAMS,
    Asked,
    read_extension,
    read_form,
    read_sampling,
    read_session,
    read_tools,
)
from gateway.openai_api.event_stream import EventStream
from gateway.openai_api.failures import error_object
from gateway.openai_api.fields import Fields, an_object, refused
from gateway.openai_api.messages import chat_message
from gateway.openai_api.running import RUN, Answer, AskedRun, FlowsAsModels
from penstock.errors import PenstockError
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall
from penstock.transcoding.exchange import ClientLeft, unexpected

CHOICES_MAX: Final = 8

KNOWN: Final = SAMPLING_PARAMS | {
    "messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "response_format", "tools",
    "tool_choice", "parallel_tool_calls", "metadata", EXTENSION,
    # What changes no answer of ours.
    "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "prediction",
}  # fmt: skip
CHANGING_NOTHING: Final[Mapping[str, Sequence[Any]]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "moderation": (),
}
"""Parameters that no flow can follow, with the values that ask for nothing."""

_STREAM_OPTIONS: Final = frozenset({"include_usage", "include_obfuscation"})
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to answer: as a stream, with or without a chunk of usage, or `count` whole answers."""

    streams: bool
    include_usage: bool
    count: int


def read(body: Any, headers: Mapping[str, str]) -> tuple[Asked, Manner]:
    """What the body of a request asks for. Raises InvalidArgument."""
    fields = Fields(an_object(body, "body"))
    fields.check_names(KNOWN, CHANGING_NOTHING)
    longest = "max_completion_tokens" if fields.values.get("max_completion_tokens") is not None else "max_tokens"
    messages = fields.items("messages", MESSAGES_MAX)
    if not messages:
        raise refused("messages", "has no message")
    form = fields.part("response_format")
    tools, must_call = read_tools(fields, lambda tool: tool.part("function"))
    inputs, overrides, session = read_extension(fields)
    asked = Asked(
        model=fields.text("model", required=True),
        messages=tuple(chat_message(each, f"messages[{at}]") for at, each in enumerate(messages)),
        sampling=read_sampling(fields, longest),
        form=read_form(form, form.part("json_schema")),
        form_param="response_format",
        tools=tools,
        must_call=must_call,
        one_call_at_most=not fields.flag("parallel_tool_calls", default=True),
        session=read_session(fields, headers, session),
        inputs=inputs,
        overrides=overrides,
    )
    return asked, _manner(fields, in_session=bool(asked.session))


def _manner(fields: Fields, *, in_session: bool) -> Manner:
    count, streams, options = fields.whole("n"), fields.flag("stream"), fields.part("stream_options")
    options.check_names(_STREAM_OPTIONS, {})
    if count is not None and not 1 <= count <= CHOICES_MAX:
        raise refused("n", f"is from 1 to {CHOICES_MAX}; not {count}")
    if count not in {None, 1} and (streams or in_session):
        raise refused("n", "is 1 in a stream and in a session, which goes on in one way alone")
    return Manner(streams=streams, include_usage=options.flag("include_usage"), count=count or 1)


class ChatCompletions:
    """The route's handler."""

    def __init__(self, models: FlowsAsModels) -> None:
        self._models = models

    async def handle(self, call: DialectCall) -> None:
        """Answers a request, whole or as a stream. Raises PenstockError as long as nothing has been sent."""
        try:
            call.exchange.check_json()
            asked, manner = read(call.json(), call.headers)
        except PenstockError as error:
            await call.unary(RUN, error)  # Which raises it, or that this caller may not call at all.
            return
        if manner.streams:
            await self._stream(call, asked, include_usage=manner.include_usage)
        else:
            await self._answer(call, asked, manner.count)

    async def _answer(self, call: DialectCall, asked: Asked, count: int) -> None:
        answers = await self._answers(call, asked, count)
        first = answers[0]
        completion = {
            "id": _id(),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.model,
            "choices": [_choice(index, answer) for index, answer in enumerate(answers)],
            "usage": _usage([answer.response.usage for answer in answers]),
            "system_fingerprint": _fingerprint(first.response.content_hash),
            EXTENSION: first.extension() if count == 1 else {"choices": [answer.extension() for answer in answers]},
        }
        await call.answer(200, completion, [(b"x-request-id", first.response.trace_id.encode())])

    async def _answers(self, call: DialectCall, asked: Asked, count: int) -> list[Answer]:
        """Several answers are as many runs, at once."""

        async def once() -> Answer:
            run = AskedRun(self._models, asked)
            return run.answer(await run.whole(call))

        if count == 1:
            return [await once()]
        tasks = [asyncio.create_task(once()) for _ in range(count)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, call: DialectCall, asked: Asked, *, include_usage: bool) -> None:
        async with EventStream(call) as stream:
            try:
                await _relay(call, stream, AskedRun(self._models, asked), _Chunks(asked.model, include_usage=include_usage))
            except ClientLeft:
                raise
            except PenstockError as error:
                await _fail(stream, error)
            except Exception as error:  # noqa: BLE001  # unexpected() logs the whole of it.
                await _fail(stream, unexpected(error, "POST /v1/chat/completions"))
        await call.end()


async def _relay(call: DialectCall, stream: EventStream, run: AskedRun, chunks: "_Chunks") -> None:
    """Sends the tokens of what makes the answer as they come, and at the end what is still to say of it."""
    said: list[str] = []
    async with aclosing(run.heard(call)) as heard:
        async for each in heard:
            if isinstance(each, str):
                await stream.write(chunks.text(each) if said else chunks.begin(run) + chunks.text(each))
                said.append(each)
            else:
                await stream.write(chunks.rest(run, each, "".join(said)))


async def _fail(stream: EventStream, error: PenstockError) -> None:
    if not stream.started:
        raise error
    await stream.write(b"data: " + orjson.dumps({"error": error_object(error)}) + b"\n\n")


class _Chunks:
    """The chunks of one streamed completion. What is the same in all is put together once."""

    __slots__ = ("_close", "_content", "_delta", "_end", "_include_usage", "_model", "_opening")

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._model = model
        self._include_usage = include_usage

    def begin(self, run: AskedRun) -> bytes:
        """The first chunk: who speaks."""
        common = {
            "id": _id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
            "system_fingerprint": _fingerprint(run.flow.content_hash),
        }
        self._opening = b"data: " + orjson.dumps(common)[:-1]
        self._delta = self._opening + b',"choices":[{"index":0,"delta":'
        self._content = self._delta + b'{"content":'
        self._close = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._end = b'},"logprobs":null,"finish_reason":null}]' + self._close
        return self._delta + b'{"role":"assistant","content":"","refusal":null' + self._end

    def text(self, text: str) -> bytes:
        """More of the answer."""
        return self._content + orjson.dumps(text) + self._end

    def rest(self, run: AskedRun, response: flow_pb2.RunFlowResponse, said: str) -> bytes:
        """What is still to say once the run has ended."""
        answer = run.answer(response)
        pieces = [] if said else [self.begin(run)]
        unsaid = answer.text[len(said) :] if answer.text.startswith(said) else ""
        if unsaid:
            pieces.append(self.text(unsaid))
        for index, call in enumerate(_tool_calls(answer)):
            pieces.append(self._delta + orjson.dumps({"tool_calls": [{"index": index, **call}]})[:-1] + self._end)
        last = b'{},"logprobs":null,"finish_reason":' + orjson.dumps(answer.finish_reason) + b'}],"%b":' % EXTENSION.encode()
        pieces.append(self._delta + last + orjson.dumps(answer.extension()) + self._close)
        if self._include_usage:
            pieces.append(self._opening + b',"choices":[],"usage":' + orjson.dumps(_usage([response.usage])) + b"}\n\n")
        return b"".join([*pieces, _DONE])


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.calls:
        message |= {"content": answer.text or None, "tool_calls": _tool_calls(answer)}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for name, arguments in answer.calls
    ]


def _usage(spent: Sequence[flow_pb2.Usage]) -> dict[str, Any]:
    prompt, completion = sum(each.input_tokens for each in spent), sum(each.output_tokens for each in spent)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in spent)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _id() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"


def _fingerprint(content_hash: str) -> str:
    """What OpenAI calls a system's fingerprint is a flow's version."""
    return f"fp_{content_hash[:16]}"
