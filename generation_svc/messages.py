"""Between penstock.generation.v1's messages and the core's values."""

from collections.abc import Iterable
from typing import Any, Final

from generation_svc.core import WholeAnswer
from generation_svc.engine import (
    Delta,
    Feature,
    Finished,
    FinishReason,
    GenerationRequest,
    LogprobOptions,
    Message,
    Role,
    Sampling,
    StructuredOutput,
    Timings,
    TokenLogprob,
    Usage,
)
from penstock import identity
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb

_ROLES: Final = {pb.ROLE_SYSTEM: Role.SYSTEM, pb.ROLE_USER: Role.USER, pb.ROLE_ASSISTANT: Role.ASSISTANT}
_FINISH_REASONS: Final = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}
_OPTIONAL_SAMPLING: Final = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "min_p",
    "repetition_penalty", "min_tokens",
)  # fmt: skip
_TEXT_FORMS: Final = (Feature.JSON_SCHEMA, Feature.REGEX, Feature.GRAMMAR)


def request_of(request: pb.GenerateRequest | pb.StreamGenerateRequest, *, streamed: bool) -> GenerationRequest:
    """What is asked, on the account of the call's tenant. Raises InvalidArgument for what no request can say."""
    return GenerationRequest(
        messages=tuple(_message(index, message) for index, message in enumerate(request.messages)),
        prompt=request.prompt,
        sampling=_sampling(request.sampling),
        n=request.n if request.HasField("n") else 1,
        logprobs=_logprob_options(request.logprobs) if request.HasField("logprobs") else None,
        structured_output=_form(request.structured_output) if request.HasField("structured_output") else None,
        adapter=request.adapter,
        priority=request.priority,
        cache_salt=request.cache_salt,
        tenant=identity.current().tenant,
        streamed=streamed,
    )


def answer_response(answer: WholeAnswer, model: str) -> pb.GenerateResponse:
    """A whole answer. `model` is the resource name."""
    first, *others = answer.texts
    finished = answer.finished
    return pb.GenerateResponse(
        text=str(first),
        finish_reason=_FINISH_REASONS[finished.finish_reason],
        matched_stop=finished.matched_stop,
        usage=usage_of(finished.usage),
        model=model,
        logprobs=_logprobs(first.logprobs),
        timings=_timings(finished.timings),
        alternatives=[
            _alternative(index, end, text=str(text), logprobs=_logprobs(text.logprobs))
            for index, (text, end) in enumerate(zip(others, finished.alternatives, strict=True), start=1)
        ],
    )


def delta_event(delta: Delta) -> pb.StreamGenerateResponse:
    """More of an answer."""
    made = pb.StreamGenerateResponse.Delta(text=delta.text, token_count=delta.token_count, index=delta.index)
    if delta.logprobs:
        made.logprobs.extend(_logprobs(delta.logprobs))
    return pb.StreamGenerateResponse(delta=made)


def done_event(finished: Finished, model: str) -> pb.StreamGenerateResponse:
    """The end of a stream. `model` is the resource name."""
    done = pb.StreamGenerateResponse.Done(
        finish_reason=_FINISH_REASONS[finished.finish_reason],
        matched_stop=finished.matched_stop,
        usage=usage_of(finished.usage),
        model=model,
        timings=_timings(finished.timings),
        alternatives=[_alternative(index, end) for index, end in enumerate(finished.alternatives, start=1)],
    )
    return pb.StreamGenerateResponse(done=done)


def _message(index: int, message: pb.Message) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        field = f"messages[{index}].role"
        fault = f"{field} is {message.role}, must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"
        raise InvalidArgument(fault, metadata={"field": field})
    return Message(role=role, content=message.content)


def _sampling(sampling: pb.Sampling) -> Sampling:
    given = {name: getattr(sampling, name) for name in _OPTIONAL_SAMPLING if sampling.HasField(name)}
    return Sampling(**given, stop=tuple(sampling.stop), include_stop=sampling.include_stop)


def _logprob_options(options: pb.LogprobOptions) -> LogprobOptions:
    return LogprobOptions(top=options.top, tokens=tuple(options.tokens))


def _form(form: pb.StructuredOutput) -> StructuredOutput:
    kind = form.WhichOneof("form")
    if kind is None or (kind == Feature.JSON_OBJECT and not form.json_object):
        message = (
            "structured_output holds no form; give json_schema, json_object (true), regex, choice or grammar, or leave it out"
        )
        raise InvalidArgument(message, metadata={"field": "structured_output"})
    feature = Feature(kind)
    value = getattr(form, kind) if feature in _TEXT_FORMS else ""
    return StructuredOutput(kind=feature, value=value, choices=tuple(form.choice.texts))


def _alternative(index: int, end: Finished, **more: Any) -> pb.Alternative:
    reason = _FINISH_REASONS[end.finish_reason]
    return pb.Alternative(index=index, finish_reason=reason, matched_stop=end.matched_stop, **more)


def _logprobs(logprobs: Iterable[TokenLogprob]) -> list[pb.TokenLogprob]:
    return [
        pb.TokenLogprob(token=each.token, logprob=each.logprob, token_id=each.token_id, top=_logprobs(each.top))
        for each in logprobs
    ]


def usage_of(usage: Usage) -> pb.Usage:
    """Tokens counted."""
    return pb.Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cached_tokens=usage.cached_tokens)


def _timings(timings: Timings | None) -> pb.Timings | None:
    if timings is None:
        return None
    moments = (timings.admitted_ns, timings.scheduled_ns, timings.first_token_ns, timings.last_token_ns)
    admitted, queued, first, done = (max(0, moment - timings.arrived_ns) / 1e9 for moment in moments)
    return pb.Timings(admitted_s=admitted, queued_s=queued, first_token_s=first, done_s=done)
