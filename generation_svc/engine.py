"""The engine port: what the service asks of whatever runs the model, and the values that pass through it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from penstock.errors import PromptTooLong


class Role(Enum):
    """Who says a message, by the name that chat templates use."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(Enum):
    """Why an answer ended, by the name that OpenAI's API and OpenTelemetry use."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop. None leaves it to the engine's default for the model."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to answer: a conversation, or else a raw prompt. One of them is empty.

    `streamed` says whether the caller reads deltas as they come; where it is False an engine may give the whole answer in one
    delta, when that is cheaper. `trace_headers` are W3C trace context for engines that call out.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    streamed: bool = True
    trace_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of the answer. The text may be empty while a character or a stop string is incomplete; tokens are still counted."""

    text: str
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted by the model's own tokenizer. `cached_tokens` are those of the prompt found in the prefix cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """When the engine began to work on a request, gave its first token and its last. Unix time in nanoseconds."""

    scheduled_ns: int
    first_token_ns: int
    last_token_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer has ended: always the last value of an iterator that did not raise. `matched_stop` is not in the text."""

    finish_reason: FinishReason
    matched_stop: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that the engine has loaded. `context_window` is in tokens, 0 where it is not known; `precision` may be empty."""

    name: str
    engine: str
    context_window: int = 0
    precision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests that the engine itself works on or holds back."""

    running: int
    waiting: int


Answer = AsyncGenerator[Delta | Finished, None]
"""An answer as it is made. Whoever iterates it closes it (contextlib.aclosing)."""


class Engine(Protocol):
    """Whatever runs the models.

    A request's failure is a PenstockError raised by its iterator: PromptTooLong, Overloaded, EngineFailed (the engine is dead
    and stays so), BackendUnavailable (it is elsewhere and cannot be reached), ModelNotFound, FailedPrecondition.
    """

    def generate(self, request: GenerationRequest) -> Answer:
        """Answers. Closing the iterator, or cancelling whoever awaits it, stops the engine's work and frees its slot."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """What is loaded; the first is the default."""
        ...

    def health(self) -> bool:
        """Whether it can answer now. Cheap: asked on every request."""
        ...

    def load(self) -> Load:
        """What it works on now. Cheap."""
        ...

    async def close(self) -> None:
        """Stops everything. Running iterators end with EngineFailed."""
        ...


def answer_room(*, prompt_tokens: int, max_tokens: int | None, max_tokens_default: int, window: int) -> int:
    """Most tokens that an answer may have.

    What the caller asked for must fit beside the prompt; the default shrinks to the room that is left.
    Raises PromptTooLong, with the numbers, when there is no room.
    """
    room = window - prompt_tokens
    if room >= (max_tokens or 1):
        return max_tokens or min(max_tokens_default, room)
    asked = f" and {max_tokens} for the answer" if max_tokens else " and at least 1 for the answer"
    raise PromptTooLong(
        f"the prompt has {prompt_tokens} tokens{asked}, but the model's window holds {window}; shorten one of them",
        metadata={"prompt_tokens": str(prompt_tokens), "max_tokens": str(max_tokens or 0), "context_window": str(window)},
    )
