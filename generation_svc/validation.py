"""What a request must be before any engine sees it. The bounds are those that the proto states."""

from collections.abc import Iterator
from typing import Final

from generation_svc.engine import GenerationRequest, Message, Sampling
from penstock.errors import EmptyText, InvalidArgument, Violation

STOPS_MAX: Final = 16
STOP_BYTES_MAX: Final = 256
TEMPERATURE_MAX: Final = 2.0
PENALTY_MAX: Final = 2.0


def check(request: GenerationRequest) -> None:
    """Raises EmptyText, or InvalidArgument with every fault of the sampling at once."""
    _check_text(request.messages, request.prompt)
    faults = tuple(_sampling_faults(request.sampling))
    if faults:
        raise InvalidArgument("; ".join(map(str, faults)), metadata={"field": faults[0].field}, violations=faults)


def _check_text(messages: tuple[Message, ...], prompt: str) -> None:
    if messages and prompt:
        raise InvalidArgument("messages and prompt are both given; give exactly one", metadata={"field": "prompt"})
    if messages and not any(message.content.strip() for message in messages):
        raise EmptyText("no message has any content", metadata={"field": "messages"})
    if not messages and not prompt.strip():
        raise EmptyText("there is nothing to answer; give messages or a prompt", metadata={"field": "messages"})


def _sampling_faults(sampling: Sampling) -> Iterator[Violation]:
    yield from _bounds("max_tokens", sampling.max_tokens, at_least=1)
    yield from _bounds("temperature", sampling.temperature, at_least=0, at_most=TEMPERATURE_MAX)
    yield from _bounds("top_p", sampling.top_p, above=0, at_most=1)
    yield from _bounds("top_k", sampling.top_k, at_least=1)
    yield from _bounds("seed", sampling.seed, at_least=0)
    yield from _bounds("presence_penalty", sampling.presence_penalty, at_least=-PENALTY_MAX, at_most=PENALTY_MAX)
    yield from _bounds("frequency_penalty", sampling.frequency_penalty, at_least=-PENALTY_MAX, at_most=PENALTY_MAX)
    yield from _stop_faults(sampling.stop)


def _bounds(
    name: str,
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
    yield Violation(field=f"sampling.{name}", message=f"is {value:g}, must be {low}{high}")


def _stop_faults(stop: tuple[str, ...]) -> Iterator[Violation]:
    if len(stop) > STOPS_MAX:
        yield Violation(field="sampling.stop", message=f"has {len(stop)} texts, at most {STOPS_MAX} are taken")
        return
    for index, text in enumerate(stop):
        size = len(text.encode())
        if not 1 <= size <= STOP_BYTES_MAX:
            message = f"has {size} bytes, must have 1 to {STOP_BYTES_MAX}"
            yield Violation(field=f"sampling.stop[{index}]", message=message)
