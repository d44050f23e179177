"""The span of one answer, by OpenTelemetry's GenAI conventions, with queue, prefill and decode below it.

    chat {model}
      queue      from arrival until the engine began
      prefill    until the first token
      decode     until the last

The three are made at the end, from the engine's timestamps where it gives them and from what was seen here otherwise. An
answer that was cut short has those that it reached.
"""

import asyncio
import json
import time

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from generation_svc.engine import Delta, Finished, GenerationRequest, ModelInfo, Sampling
from generation_svc.watch import Watch
from penstock import semconv
from penstock.errors import Code, PenstockError
from penstock.tracing import carried, unrecorded

_CALLERS_FAULT = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED, Code.CANCELLED}


class AnswerSpan:
    """The span of one answer. Not made current: what it spans yields to other code in between."""

    def __init__(self, tracer: Tracer, request: GenerationRequest, model: ModelInfo, *, capture_content: bool) -> None:
        operation = "chat" if request.messages else "text_completion"
        self._tracer = tracer
        current = unrecorded()
        self._span = tracer.start_span(f"{operation} {model.name}", kind=SpanKind.INTERNAL) if current is None else current
        self._texts: dict[int, list[str]] | None = {} if capture_content and self._span.is_recording() else None
        if self._span.is_recording():
            self._span.set_attributes(_request_attributes(operation, request, model))
        if self._texts is not None:
            self._span.set_attribute(semconv.GEN_AI_INPUT_MESSAGES, _input_content(request))

    def trace_headers(self) -> dict[str, str]:
        """W3C trace context for what the engine calls on our behalf."""
        return carried(self._span)

    def saw(self, part: Delta | Finished) -> None:
        """A part of the answer has come."""
        if self._texts is not None and isinstance(part, Delta):
            self._texts.setdefault(part.index, []).append(part.text)

    def end(self, watch: Watch, error: BaseException | None) -> None:
        """The answer has ended, however it did."""
        if not self._span.is_recording():
            return
        now = time.time_ns()
        if error is not None:
            self._fail(error)
        self._tell(watch)
        self._tell_children(watch, now)
        self._span.end(now)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._span.set_attribute(semconv.PENSTOCK_REASON, "CANCELLED")
            return
        reason = error.reason if isinstance(error, PenstockError) else "INTERNAL"
        self._span.set_attribute(semconv.PENSTOCK_REASON, reason)
        if not isinstance(error, PenstockError) or error.code not in _CALLERS_FAULT:
            self._span.set_attribute(semconv.ERROR_TYPE, reason)
            self._span.set_status(Status(StatusCode.ERROR))

    def _tell(self, watch: Watch) -> None:
        if watch.first_ns:
            seconds = watch.seconds_to(watch.first_ns)
            self._span.set_attribute(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, seconds)
        if self._texts is not None:
            answers = [_turn("assistant", "".join(texts)) for _, texts in sorted(self._texts.items())]
            self._span.set_attribute(semconv.GEN_AI_OUTPUT_MESSAGES, json.dumps(answers, ensure_ascii=False))
        if (finished := watch.finished) is not None:
            reasons = (finished, *finished.alternatives)
            self._span.set_attributes(
                {
                    semconv.GEN_AI_RESPONSE_FINISH_REASONS: tuple(each.finish_reason.value for each in reasons),
                    semconv.GEN_AI_USAGE_INPUT_TOKENS: finished.usage.input_tokens,
                    semconv.GEN_AI_USAGE_OUTPUT_TOKENS: finished.usage.output_tokens,
                    semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: finished.usage.cached_tokens,
                }
            )

    def _tell_children(self, watch: Watch, now: int) -> None:
        self._child("queue", watch.arrived_ns, watch.scheduled_ns or now)
        if watch.scheduled_ns:
            self._child("prefill", watch.scheduled_ns, watch.first_ns or now)
        if watch.first_ns:
            self._child("decode", watch.first_ns, watch.last_ns or now)

    def _child(self, name: str, start_ns: int, end_ns: int) -> None:
        # Clocks of two processes may differ by a little; a child never ends before it starts.
        child: Span = self._tracer.start_span(name, context=trace.set_span_in_context(self._span), start_time=start_ns)
        child.end(max(start_ns, end_ns))


def _request_attributes(operation: str, request: GenerationRequest, model: ModelInfo) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.GEN_AI_OPERATION_NAME: operation,
        semconv.GEN_AI_PROVIDER_NAME: model.engine,
        semconv.GEN_AI_REQUEST_MODEL: model.name,
        semconv.GEN_AI_RESPONSE_MODEL: model.name,
    }
    if request.n > 1:
        attributes[semconv.GEN_AI_REQUEST_CHOICE_COUNT] = request.n
    if request.adapter:
        attributes[semconv.PENSTOCK_ADAPTER] = request.adapter
    return attributes | _sampling_attributes(request.sampling)


def _sampling_attributes(sampling: Sampling) -> dict[str, AttributeValue]:
    given: dict[str, AttributeValue | None] = {
        semconv.GEN_AI_REQUEST_MAX_TOKENS: sampling.max_tokens,
        semconv.GEN_AI_REQUEST_TEMPERATURE: sampling.temperature,
        semconv.GEN_AI_REQUEST_TOP_P: sampling.top_p,
        semconv.GEN_AI_REQUEST_TOP_K: sampling.top_k,
        semconv.GEN_AI_REQUEST_SEED: sampling.seed,
        semconv.GEN_AI_REQUEST_PRESENCE_PENALTY: sampling.presence_penalty,
        semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty,
        semconv.GEN_AI_REQUEST_STOP_SEQUENCES: sampling.stop or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _input_content(request: GenerationRequest) -> str:
    if not request.messages:
        return _content("user", request.prompt)
    turns = [_turn(message.role.value, message.content) for message in request.messages]
    return json.dumps(turns, ensure_ascii=False)


def _content(role: str, text: str) -> str:
    return json.dumps([_turn(role, text)], ensure_ascii=False)


def _turn(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
