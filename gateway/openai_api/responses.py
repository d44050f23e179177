"""POST /v1/responses: what is asked, and the two ways to answer."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from gateway.execution import ChatMessage
from gateway.openai_api.asking import (
    EXTENSION,
    MESSAGES_MAX,
    SAMPLING_PARAMS,
    Asked,
    called,
    read_extension,
    read_form,
    read_sampling,
    read_session,
    read_tools,
)
from gateway.openai_api.conversations import Conversations, response_id
from gateway.openai_api.event_stream import EventStream
from gateway.openai_api.fields import Fields, an_object, refused
from gateway.openai_api.messages import items
from gateway.openai_api.response_events import ResponseEvents
from gateway.openai_api.response_object import ResponseObject
from gateway.openai_api.running import RUN, Answer, AskedRun, FlowsAsModels
from penstock.errors import PenstockError
from penstock.transcoding.dialect import DialectCall
from penstock.transcoding.exchange import ClientLeft, unexpected

KNOWN: Final = (SAMPLING_PARAMS - {"stop"}) | {
    "input", "instructions", "model", "stream", "stream_options", "max_output_tokens", "text", "tools", "tool_choice",
    "parallel_tool_calls", "previous_response_id", "store", "metadata", EXTENSION,
    # What changes no answer of ours.
    "user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "include", "truncation", "max_tool_calls",
}  # fmt: skip
CHANGING_NOTHING: Final[Mapping[str, Sequence[Any]]] = {
    "background": (False,),
    "background_options": ({},),
    "conversation": (),
    "context_management": ([],),
    "image": (),
    "moderation": (),
    "prompt": (),
    "reasoning": ({}, {"effort": None}, {"effort": None, "summary": None}, {"effort": "none"}),
    "top_logprobs": (0,),
}
"""Parameters that no flow can follow, with the values that ask for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAsked:
    """A request: the run that it asks for, and what is only said again in the response. `given` is its whole body."""

    asked: Asked
    previous: str
    keeps: bool
    streams: bool
    given: Mapping[str, Any]

    @property
    def kept_turns(self) -> Sequence[ChatMessage]:
        """The turns that a next request stands on: instructions hold for one response alone."""
        return self.asked.messages[1:] if self.given.get("instructions") else self.asked.messages


def read(body: Any, headers: Mapping[str, str]) -> ResponseAsked:
    """What the body of a request asks for. Raises InvalidArgument."""
    fields = Fields(an_object(body, "body"))
    fields.check_names(KNOWN, CHANGING_NOTHING)
    text = fields.part("text")
    form = text.part("format")
    tools, must_call = read_tools(fields, lambda tool: tool)
    fields.part("stream_options").check_names({"include_obfuscation"}, {})
    inputs, overrides, session = read_extension(fields)
    instructions = fields.text("instructions")
    asked = Asked(
        model=fields.text("model", required=True),
        messages=(*([ChatMessage(role="system", content=instructions)] if instructions else ()), *_turns(fields)),
        said="input",
        sampling=read_sampling(fields, "max_output_tokens"),
        form=read_form(form, form),
        form_param="text.format",
        tools=tools,
        must_call=must_call,
        one_call_at_most=not fields.flag("parallel_tool_calls", default=True),
        session=read_session(fields, headers, session),
        inputs=inputs,
        overrides=overrides,
    )
    return ResponseAsked(
        asked=asked,
        previous=fields.text("previous_response_id"),
        keeps=fields.flag("store", default=True),
        streams=fields.flag("stream"),
        given=fields.values,
    )


def _turns(fields: Fields) -> Sequence[ChatMessage]:
    given = fields.values.get("input")
    if isinstance(given, str):
        return (ChatMessage(role="user", content=given),)
    turns = tuple(items(fields.items("input", MESSAGES_MAX), "input"))
    if not turns:
        raise refused("input", "is a text, or a list of items with at least one")
    return turns


class Responses:
    """The route's handler."""

    def __init__(self, models: FlowsAsModels, conversations: Conversations) -> None:
        self._models = models
        self._conversations = conversations

    async def handle(self, call: DialectCall) -> None:
        """Answers a request, whole or as a stream. Raises PenstockError as long as nothing has been sent."""
        try:
            call.exchange.check_json()
            request = read(call.json(), call.headers)
        except PenstockError as error:
            await call.unary(RUN, error)  # Which raises it, or that this caller may not call at all.
            return
        run = AskedRun(self._models, request.asked, lambda: self._before(request))
        about = ResponseObject(response_id(), request.asked.model, request.given)
        if request.streams:
            await self._stream(call, request, run, about)
        else:
            answer = run.answer(await run.whole(call))
            await self._keep(about.id, request, run, answer)
            trace_id = answer.response.trace_id.encode()
            await call.answer(200, about.ended(answer, about.items(answer)), [(b"x-request-id", trace_id)])

    async def _before(self, request: ResponseAsked) -> Sequence[ChatMessage]:
        return await self._conversations.before(request.previous) if request.previous else ()

    async def _keep(self, response: str, request: ResponseAsked, run: AskedRun, answer: Answer) -> None:
        if not request.keeps:
            return
        said = [ChatMessage(role="assistant", content=answer.text)] if answer.text else []
        said += [ChatMessage(role="assistant", content=called(*each)) for each in answer.calls]
        await self._conversations.keep(response, (*run.before, *request.kept_turns, *said), run.context)

    async def _stream(self, call: DialectCall, request: ResponseAsked, run: AskedRun, about: ResponseObject) -> None:
        events = ResponseEvents(about)
        async with EventStream(call) as stream:
            try:
                await self._relay(call, stream, request, run, events)
            except ClientLeft:
                raise
            except PenstockError as error:
                await _fail(stream, events, error)
            except Exception as error:  # noqa: BLE001  # unexpected() logs the whole of it.
                await _fail(stream, events, unexpected(error, "POST /v1/responses"))
        await call.end()

    async def _relay(
        self, call: DialectCall, stream: EventStream, request: ResponseAsked, run: AskedRun, events: ResponseEvents
    ) -> None:
        async with aclosing(run.heard(call)) as heard:
            async for each in heard:
                if isinstance(each, str):
                    await stream.write(events.text(each))
                else:
                    answer = run.answer(each)
                    await self._keep(events.about.id, request, run, answer)
                    await stream.write(events.rest(answer))


async def _fail(stream: EventStream, events: ResponseEvents, error: PenstockError) -> None:
    if not stream.started:
        raise error
    await stream.write(events.failed(error))
