"""Between the generator's port and the messages of the generation service. Nothing is decided here."""

from collections.abc import Iterable
from typing import Final, TypeVar

from gateway.backends import (
    Alternative,
    Answer,
    Delta,
    Finish,
    Form,
    GenerateRequest,
    LogprobOptions,
    Sampling,
    TokenLogprob,
)
from gateway.execution import ChatMessage
from penstock.generation.v1 import generation_pb2 as pb

_ROLES: Final = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_USER,  # The service knows three roles.
}
_REASONS: Final = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
_OPTIONAL: Final = tuple(name for name in Sampling.__dataclass_fields__ if name != "stop")

M = TypeVar("M", pb.GenerateRequest, pb.StreamGenerateRequest)


def written(request: GenerateRequest, message: M) -> M:
    """`message` with all that `request` says, in the fields that both kinds of message share."""
    message.model = f"models/{request.model}"
    if request.raw:
        message.prompt = request.prompt
    else:
        message.messages.extend(_messages(request))
    _write_sampling(request.sampling, message.sampling)
    if request.n != 1:
        message.n = request.n
    if request.logprobs is not None:
        message.logprobs.CopyFrom(_logprob_options(request.logprobs))
    if request.form is not None:
        message.structured_output.CopyFrom(_form(request.form))
    if request.priority:
        message.priority = request.priority
    message.adapter = request.adapter
    message.cache_salt = request.cache_salt
    return message


def answer(response: pb.GenerateResponse) -> Answer:
    """A whole answer."""
    return Answer(
        text=response.text,
        finish=finish(response),
        logprobs=_tokens(response.logprobs),
        alternatives=_alternatives(response.alternatives),
    )


def delta(message: pb.StreamGenerateResponse.Delta) -> Delta:
    """More of an answer."""
    return Delta(text=message.text, index=message.index, logprobs=_tokens(message.logprobs) if message.logprobs else ())


def finish(ended: pb.GenerateResponse | pb.StreamGenerateResponse.Done) -> Finish:
    """How an answer ended."""
    usage = ended.usage
    return Finish(
        reason=_REASONS.get(ended.finish_reason, "stop"),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        model=ended.model.removeprefix("models/"),
        cached_tokens=usage.cached_tokens,
        matched_stop=ended.matched_stop,
        alternatives=_alternatives(ended.alternatives),
    )


def _messages(request: GenerateRequest) -> list[pb.Message]:
    said = [_message(turn) for turn in request.messages]
    if request.system:
        said.insert(0, pb.Message(role=pb.ROLE_SYSTEM, content=request.system))
    said.append(pb.Message(role=pb.ROLE_USER, content=request.prompt))
    return said


def _message(turn: ChatMessage) -> pb.Message:
    """What a tool gave is marked as such, in the form in which models that call tools know it (see nodes/calling.py)."""
    content = f"<tool_response>\n{turn.content}\n</tool_response>" if turn.role == "tool" else turn.content
    return pb.Message(role=_ROLES[turn.role], content=content)


def _write_sampling(sampling: Sampling, message: pb.Sampling) -> None:
    message.SetInParent()
    message.stop.extend(sampling.stop)
    for name in _OPTIONAL:
        value = getattr(sampling, name)
        if value is not None:
            setattr(message, name, value)


def _logprob_options(options: LogprobOptions) -> pb.LogprobOptions:
    return pb.LogprobOptions(top=options.top, tokens=options.tokens)


def _form(form: Form) -> pb.StructuredOutput:
    match form.kind:
        case "json_object":
            return pb.StructuredOutput(json_object=True)
        case "choice":
            return pb.StructuredOutput(choice=pb.StructuredOutput.Choice(texts=form.value))
        case "json_schema":
            return pb.StructuredOutput(json_schema=str(form.value))
        case "regex":
            return pb.StructuredOutput(regex=str(form.value))
        case "grammar":
            return pb.StructuredOutput(grammar=str(form.value))


def _alternatives(messages: Iterable[pb.Alternative]) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(
            text=message.text,
            reason=_REASONS.get(message.finish_reason, "stop"),
            matched_stop=message.matched_stop,
            logprobs=_tokens(message.logprobs),
        )
        for message in sorted(messages, key=lambda each: each.index)
    )


def _tokens(messages: Iterable[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token=each.token, logprob=each.logprob, token_id=each.token_id, top=_tokens(each.top)) for each in messages
    )
