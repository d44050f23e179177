"""Between the client's values and penstock.generation.v1's messages."""

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from penstock.clients.choices import chosen
from penstock.clients.connection import resource_name, short_name
from penstock.clients.generation_values import (
    Alternative,
    Delta,
    FinishReason,
    Load,
    Message,
    Model,
    More,
    Role,
    Sampling,
    StructuredOutput,
    Timings,
    TokenLogprob,
    Usage,
)
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb

_ROLES: Final[dict[Role, pb.Role]] = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
_FINISH_REASONS: Final[dict[int, FinishReason]] = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


def _turns(messages: Sequence[Message]) -> list[pb.Message]:
    return [
        pb.Message(role=chosen(_ROLES, message.role, f"messages[{at}].role"), content=message.content)
        for at, message in enumerate(messages)
    ]


def _sampling(sampling: Sampling) -> pb.Sampling:
    return pb.Sampling(**{field.name: getattr(sampling, field.name) for field in fields(sampling)})


def filled(request: Any, messages: Sequence[Message], *, prompt: str, model: str, sampling: Sampling | None, more: More) -> Any:
    """The request, with what is asked put into it."""
    request.model, request.prompt = resource_name("models", model), prompt
    request.messages.extend(_turns(messages))
    if sampling is not None:
        request.sampling.CopyFrom(_sampling(sampling))
    if (options := more.get("logprobs")) is not None:
        request.logprobs.CopyFrom(pb.LogprobOptions(top=options.top, tokens=options.tokens))
    if (form := more.get("structured_output")) is not None:
        request.structured_output.CopyFrom(_form(form))
    for name in ("n", "adapter", "priority", "cache_salt"):
        if (value := more.get(name)) is not None:
            setattr(request, name, value)
    return request


def _form(form: StructuredOutput) -> pb.StructuredOutput:
    schema = form.json_schema if form.json_schema is None or isinstance(form.json_schema, str) else json.dumps(form.json_schema)
    given: dict[str, Any] = {"json_schema": schema, "regex": form.regex, "grammar": form.grammar}
    given |= {"json_object": form.json_object or None}
    given |= {"choice": pb.StructuredOutput.Choice(texts=form.choice) if form.choice else None}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        message = f"a form is exactly one of {', '.join(given)}; given are {', '.join(chosen) or 'none'}"
        raise InvalidArgument(message, metadata={"field": "structured_output"})
    return pb.StructuredOutput(**chosen)


def delta_of(delta: Any) -> Delta:
    logprobs = logprobs_of(delta.logprobs) if delta.logprobs else ()
    return Delta(text=delta.text, token_count=delta.token_count, index=delta.index, logprobs=logprobs)


def logprobs_of(logprobs: Iterable[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token=each.token, logprob=each.logprob, token_id=each.token_id, top=logprobs_of(each.top))
        for each in logprobs
    )


def _alternative(made: pb.Alternative) -> Alternative:
    return Alternative(
        index=made.index,
        text=made.text,
        finish_reason=_FINISH_REASONS.get(made.finish_reason, ""),
        matched_stop=made.matched_stop,
        logprobs=logprobs_of(made.logprobs),
    )


def ending_of(done: Any) -> dict[str, Any]:
    return {
        "finish_reason": _FINISH_REASONS.get(done.finish_reason, ""),
        "matched_stop": done.matched_stop,
        "usage": Usage(
            input_tokens=done.usage.input_tokens,
            output_tokens=done.usage.output_tokens,
            cached_tokens=done.usage.cached_tokens,
        ),
        "model": short_name(done.model),
        "timings": _timings(done.timings) if done.HasField("timings") else None,
        "alternatives": tuple(map(_alternative, done.alternatives)),
    }


def model_of(model: pb.Model) -> Model:
    return Model(
        name=short_name(model.name),
        engine=model.engine,
        context_window=model.context_window,
        precision=model.precision,
        features=tuple(model.features),
        adapters=tuple(model.adapters),
    )


def _timings(timings: pb.Timings) -> Timings:
    return Timings(**{field.name: getattr(timings, field.name) for field in fields(Timings)})


def load_of(load: pb.GetLoadResponse) -> Load:
    """What the service works on."""
    told = {field.name: getattr(load, field.name) for field in fields(Load)}
    return Load(**{**told, "cache_used": load.cache_used if load.HasField("cache_used") else None})


def vector_of(vector: pb.EmbedResponse.Vector) -> tuple[float, ...]:
    """The numbers of a vector."""
    return struct.unpack(f"<{len(vector.values) // 4}f", vector.values)
