"""The engine port: what the service asks of whatever runs the model, and the values that pass through it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
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


class Feature(StrEnum):
    """What an engine may be able to do beyond plain sampling, by the name of the field that asks for it.

    What an engine does not declare is refused before it sees the request (features.check), and never ignored.
    """

    GENERATE = "generate"
    TOP_K = "top_k"
    MIN_P = "min_p"
    REPETITION_PENALTY = "repetition_penalty"
    MIN_TOKENS = "min_tokens"
    INCLUDE_STOP = "include_stop"
    LOGPROBS = "logprobs"
    TOP_LOGPROBS = "logprobs.top"
    NAMED_LOGPROBS = "logprobs.tokens"
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    ADAPTER = "adapter"
    CACHE_SALT = "cache_salt"
    EMBED = "embed"
    RERANK = "rerank"


_NUMBERS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "min_tokens",
)  # fmt: skip


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
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    include_stop: bool = False

    def numbers(self) -> dict[str, float]:
        """The numbers that were given, by name; but for max_tokens, which must fit the window."""
        return {name: value for name in _NUMBERS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobOptions:
    """Which log probabilities to give: of each chosen token, and beside it of the `top` likeliest, or of these `tokens`."""

    top: int = 0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutput:
    """A form that the answer must have: `value` is a JSON Schema's text, a regular expression or a grammar, by `kind`.

    `choices` are the texts of CHOICE; JSON_OBJECT needs neither. Checked already: see forms.check.
    """

    kind: Feature
    value: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to answer: a conversation, or else a raw prompt. One of them is empty.

    `n`, `priority` (larger goes first) and `tenant` are the core's: an engine gets requests for one answer, in their turn,
    and may use the priority for its own order. `cache_salt` is a salt that the core has made of the caller's and the tenant's.
    `streamed` says whether the caller reads deltas as they come; where it is False an engine may give the whole answer in one
    delta, when that is cheaper. `trace_headers` are W3C trace context for engines that call out.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    logprobs: LogprobOptions | None = None
    structured_output: StructuredOutput | None = None
    adapter: str = ""
    priority: int = 0
    cache_salt: str = ""
    tenant: str = ""
    streamed: bool = True
    trace_headers: Mapping[str, str] = field(default_factory=dict)

    def turns(self) -> list[dict[str, str]]:
        """The conversation as chat templates and OpenAI's API take it."""
        return [{"role": message.role.value, "content": message.content} for message in self.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token's text and the natural logarithm of its probability. `token_id` -1: not known. `top`: those asked for there."""

    token: str
    logprob: float
    token_id: int = -1
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of the answer. The text may be empty while a character or a stop string is incomplete; tokens are still counted.

    `index` is that of the answer where several were asked for; engines leave it 0.
    """

    text: str
    token_count: int
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted by the model's own tokenizer. `cached_tokens` are those of the prompt found in the prefix cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """When the engine began to work on a request, gave its first token and its last. Unix time in nanoseconds.

    `arrived_ns`, when the service got it, and `admitted_ns`, when the engine got it, are added by the core.
    """

    scheduled_ns: int
    first_token_ns: int
    last_token_ns: int
    arrived_ns: int = 0
    admitted_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer has ended: always the last value of an iterator that did not raise.

    `matched_stop` is at the end of the text only if include_stop was asked for. `alternatives` are the ends of the other
    answers where several were asked for, in their order; usage and timings are then those of all. Engines leave them empty.
    """

    finish_reason: FinishReason
    matched_stop: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings | None = None
    alternatives: "tuple[Finished, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that the engine has loaded. `context_window` is in tokens, 0 where it is not known; `precision` may be empty."""

    name: str
    engine: str
    context_window: int = 0
    precision: str = ""
    features: frozenset[Feature] = frozenset()
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests that the engine itself works on or holds back, and what it says of its caches.

    `cache_used` is the share of the memory for keys and values that is in use, None where it does not say. Tokens of prompts
    that were looked up in the prefix cache, tokens that were found there, and requests that were put back for lack of memory
    are counted from its start.
    """

    running: int
    waiting: int
    cache_used: float | None = None
    prefix_queried_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0


Answer = AsyncGenerator[Delta | Finished, None]
"""An answer as it is made. Whoever iterates it closes it (contextlib.aclosing)."""


class Engine(Protocol):
    """Whatever runs the models.

    A request's failure is a PenstockError raised by its iterator: PromptTooLong, Overloaded, EngineFailed (the engine is dead
    and stays so), BackendUnavailable (it is elsewhere and cannot be reached), ModelNotFound, FailedPrecondition,
    InvalidArgument.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """A vector for each text, in their order, as float32, little-endian. `usage` counts the texts' tokens."""

    vectors: tuple[bytes, ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How well each document answers the query, in their order; larger is better. `usage` counts the tokens of all pairs."""

    scores: tuple[float, ...]
    usage: Usage


class ModelHost(Protocol):
    """What engines of every kind have: see Engine, whose methods these are too."""

    def models(self) -> tuple[ModelInfo, ...]: ...

    def health(self) -> bool: ...

    def load(self) -> Load: ...

    async def close(self) -> None: ...


class PoolingEngine(ModelHost, Protocol):
    """Whatever turns texts into vectors, or pairs of texts into scores. ModelInfo.features says which of them.

    Failures are those of an Engine; PromptTooLong for a text over the model's window, which names the text. Cancelling whoever
    awaits it stops the work.
    """

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text."""
        ...

    async def score(self, query: str, documents: Sequence[str]) -> Scores:
        """A score for each document."""
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
