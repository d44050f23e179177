"""What a request must be before any engine sees it. The bounds are those that the proto states."""

from collections.abc import Iterator, Mapping
from typing import Final

from generation_svc import forms
from generation_svc.engine import GenerationRequest, LogprobOptions, Message, Sampling
from penstock.errors import EmptyText, InvalidArgument, Violation

STOPS_MAX: Final = 16
STOP_BYTES_MAX: Final = 256
TEMPERATURE_MAX: Final = 2.0
PENALTY_MAX: Final = 2.0
ANSWERS_MAX: Final = 16
TOP_LOGPROBS_MAX: Final = 20
NAMED_LOGPROBS_MAX: Final = 64
NAMED_TOKEN_BYTES_MAX: Final = 256
PRIORITY_MAX: Final = 100
NAME_BYTES_MAX: Final = 256
WHOLE_LOGPROBS_MAX: Final = 2**18
"""Log probabilities of an answer that is not streamed: they are all held until it is complete."""


_SAMPLING: Final[Mapping[str, Mapping[str, float]]] = {
    "max_tokens": {"at_least": 1},
    "temperature": {"at_least": 0, "at_most": TEMPERATURE_MAX},
    "top_p": {"above": 0, "at_most": 1},
    "top_k": {"at_least": 1},
    "min_p": {"at_least": 0, "at_most": 1},
    "seed": {"at_least": 0},
    "presence_penalty": {"at_least": -PENALTY_MAX, "at_most": PENALTY_MAX},
    "frequency_penalty": {"at_least": -PENALTY_MAX, "at_most": PENALTY_MAX},
    "repetition_penalty": {"above": 0, "at_most": PENALTY_MAX},
}


def check(request: GenerationRequest) -> None:
    """Raises EmptyText, or InvalidArgument with every fault at once."""
    _check_text(request.messages, request.prompt)
    faults = tuple(_faults(request))
    if faults:
        raise InvalidArgument("; ".join(map(str, faults)), metadata={"field": faults[0].field}, violations=faults)


def _faults(request: GenerationRequest) -> Iterator[Violation]:
    yield from _sampling_faults(request.sampling)
    yield from _bounds("n", request.n, at_least=1, at_most=ANSWERS_MAX)
    if request.n > 1 and request.sampling.temperature == 0:
        yield Violation(field="n", message=f"is {request.n} with a temperature of 0, by which all answers would be the same")
    if request.logprobs is not None:
        yield from _logprob_faults(request.logprobs)
        yield from _too_many_logprobs(request, request.logprobs)
    if request.structured_output is not None:
        yield from forms.faults(request.structured_output)
    yield from _bounds("priority", request.priority, at_least=-PRIORITY_MAX, at_most=PRIORITY_MAX)
    for name, text in (("adapter", request.adapter), ("cache_salt", request.cache_salt)):
        if (size := len(text.encode())) > NAME_BYTES_MAX:
            yield Violation(field=name, message=f"has {size} bytes, at most {NAME_BYTES_MAX} are taken")


def _check_text(messages: tuple[Message, ...], prompt: str) -> None:
    if messages and prompt:
        raise InvalidArgument("messages and prompt are both given; give exactly one", metadata={"field": "prompt"})
    if messages and not any(message.content.strip() for message in messages):
        raise EmptyText("no message has any content", metadata={"field": "messages"})
    if not messages and not prompt.strip():
        raise EmptyText("there is nothing to answer; give messages or a prompt", metadata={"field": "messages"})


def _sampling_faults(sampling: Sampling) -> Iterator[Violation]:
    for name, bounds in _SAMPLING.items():
        if (value := getattr(sampling, name)) is not None:
            yield from _bounds(f"sampling.{name}", value, **bounds)
    if sampling.min_tokens is not None:
        most = sampling.max_tokens or float("inf")
        yield from _bounds("sampling.min_tokens", sampling.min_tokens, at_least=0, at_most=most)
    yield from _stop_faults(sampling.stop)


def _logprob_faults(logprobs: LogprobOptions) -> Iterator[Violation]:
    yield from _bounds("logprobs.top", logprobs.top, at_least=0, at_most=TOP_LOGPROBS_MAX)
    if logprobs.top and logprobs.tokens:
        yield Violation(field="logprobs.tokens", message="is given beside logprobs.top; give one of them")
    if len(logprobs.tokens) > NAMED_LOGPROBS_MAX:
        message = f"has {len(logprobs.tokens)} tokens, at most {NAMED_LOGPROBS_MAX} are taken"
        yield Violation(field="logprobs.tokens", message=message)
        return
    for index, text in enumerate(logprobs.tokens):
        if not 1 <= (size := len(text.encode())) <= NAMED_TOKEN_BYTES_MAX:
            message = f"has {size} bytes, must have 1 to {NAMED_TOKEN_BYTES_MAX}"
            yield Violation(field=f"logprobs.tokens[{index}]", message=message)


def _too_many_logprobs(request: GenerationRequest, logprobs: LogprobOptions) -> Iterator[Violation]:
    each = 1 + max(logprobs.top, len(logprobs.tokens))
    count = each * max(1, request.n) * (request.sampling.max_tokens or 1)
    if not request.streamed and count > WHOLE_LOGPROBS_MAX:
        message = f"would be {count:,}, at most {WHOLE_LOGPROBS_MAX:,} are given in one answer; stream it, or ask for fewer"
        yield Violation(field="logprobs", message=message)


def _bounds(
    field: str,
    value: float | None,
    *,
    at_least: float = float("-inf"),
    above: float = float("-inf"),
    at_most: float = float("inf"),
) -> Iterator[Violation]:
    if value is None or (value >= at_least and value > above and value <= at_most):  # False for NaN, as it must be.
        return
    low = f"above {above:g}" if above > float("-inf") else f"at least {at_least:g}"
    high = f" and at most {at_most:g}" if at_most < float("inf") else ""
    yield Violation(field=field, message=f"is {value:g}, must be {low}{high}")


def _stop_faults(stop: tuple[str, ...]) -> Iterator[Violation]:
    if len(stop) > STOPS_MAX:
        yield Violation(field="sampling.stop", message=f"has {len(stop)} texts, at most {STOPS_MAX} are taken")
        return
    for index, text in enumerate(stop):
        size = len(text.encode())
        if not 1 <= size <= STOP_BYTES_MAX:
            message = f"has {size} bytes, must have 1 to {STOP_BYTES_MAX}"
            yield Violation(field=f"sampling.stop[{index}]", message=message)
