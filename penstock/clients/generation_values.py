"""What the client of generation.v1 takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", ""]
"""Why an answer ended: the model ended it or a stop text was met; max_tokens or the window was reached; not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop. None: the engine's default for the model. Ranges are in the proto.

    `include_stop` keeps the stop text that ended the answer at the end of its text.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    include_stop: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobOptions:
    """Asks for the log probability of each token, and beside it of the `top` likeliest, or of these `tokens`."""

    top: int = 0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutput:
    """A form that the answer must have: exactly one of these. A schema may be given as a dict or as JSON text."""

    json_schema: Mapping[str, Any] | str | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] = ()
    grammar: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token's text and the natural logarithm of its probability. `token_id` -1: not known. `top`: those asked for there."""

    token: str
    logprob: float
    token_id: int
    top: "tuple[TokenLogprob, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds from the request's arrival until the engine got it, began, gave its first token, and its last. 0: not at all."""

    admitted_s: float
    queued_s: float
    first_token_s: float
    done_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One of several answers, after the first. At a stream's end, whose deltas had them, text and logprobs are empty."""

    index: int
    text: str
    finish_reason: FinishReason
    matched_stop: str
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted by the models' own tokenizers. `cached_tokens` are those of the input that a prefix cache held."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. `matched_stop` is the stop text that ended it, if one did; `model` the name of what answered."""

    text: str
    finish_reason: FinishReason
    matched_stop: str
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()
    timings: Timings | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of an answer: the text to append and how many tokens it is. `index`: which of several answers it belongs to."""

    text: str
    token_count: int
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a streamed answer ended. Always the last event."""

    finish_reason: FinishReason
    matched_stop: str
    usage: Usage
    model: str
    timings: Timings | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that is served. `context_window` is in tokens, 0 where it is not known; so is an empty `precision`.

    `features` are what its engine can do beyond plain sampling, by the names of the fields that ask for it.
    """

    name: str
    engine: str
    context_window: int
    precision: str
    features: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the service works on now: slots taken and requests waiting, of how many, and what the engine says of its caches."""

    running: int
    waiting: int
    running_max: int
    waiting_max: int
    cache_used: float | None
    prefix_queried_tokens: int
    prefix_hit_tokens: int


class More(TypedDict, total=False):
    """What may be asked beside messages and sampling. What the model's engine lacks is refused as UnsupportedFeature."""

    n: int
    """How many answers, 1 to 16."""
    logprobs: LogprobOptions
    structured_output: StructuredOutput
    adapter: str
    """The LoRA adapter to answer with, one of Model.adapters."""
    priority: int
    """Which of the tenant's requests go first when some wait, -100 to 100: larger before smaller."""
    cache_salt: str
    """Keeps what the prompt leaves in the prefix cache to requests with the same text here."""
