"""The ports through which nodes reach what is outside of their flow: clients.py has two of them over gRPC, tests have fakes."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.execution import ChatMessage, Run
from gateway.values import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop. None: the engine's default for the model."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    include_stop: bool | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that an answer must have. `value` is the text of the schema, regular expression or grammar, or the choices."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "grammar"]
    value: str | tuple[str, ...] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobOptions:
    """Which logarithms of probabilities to answer for each token: of the `top` likeliest, or of exactly these `tokens`."""

    top: int = 0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token of an answer. `token_id` is -1 where the engine does not say; `top` are the tokens asked for in its place."""

    token: str
    logprob: float
    token_id: int = -1
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One question to a model. `model` is its name alone, such as "default"; an empty `system` is none.

    `messages` are the turns between the system's and the prompt. `raw` gives the model the prompt as it is, without a chat
    template. `n` answers share the prompt's work. `session` names a conversation whose prompts begin alike, so that they are
    answered where its beginning is cached; it is not sent. Empty: none, and the prompt itself tells.
    """

    model: str
    prompt: str
    system: str = ""
    messages: tuple[ChatMessage, ...] = ()
    raw: bool = False
    session: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    logprobs: LogprobOptions | None = None
    form: Form | None = None
    adapter: str = ""
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of an answer: of the one with the number `index`, with its tokens where logprobs were asked for."""

    text: str
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an answer ended. Tokens are counted by the model's own tokenizer; `reason` is "stop" or "length".

    `cached_tokens` are those of the input that the engine found in its prefix cache; `matched_stop` is the stop text that ended
    the answer, empty where none did. `alternatives` say how the others of a stream ended, whose deltas had their texts.
    """

    reason: str
    input_tokens: int
    output_tokens: int
    model: str
    cached_tokens: int = 0
    matched_stop: str = ""
    alternatives: tuple["Alternative", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another answer to the same request."""

    text: str
    reason: str
    matched_stop: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    text: str
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


class Retriever(Protocol):
    """Finds passages."""

    async def search(self, collection: str, query: str, top_k: int) -> tuple[Document, ...]:
        """The `top_k` passages nearest to `query`, nearest first; fewer where the collection holds fewer.

        Raises what the service raises (CollectionNotFound, EmptyText, TopKOutOfRange ...), and BackendUnavailable.
        """
        ...


class Generator(Protocol):
    """Answers prompts. Leaving either call, by cancellation or by closing the iterator, stops the model's work."""

    async def generate(self, request: GenerateRequest) -> Answer:
        """The whole answer. Raises what the service raises (ModelNotFound, PromptTooLong ...), and BackendUnavailable."""
        ...

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        """The answer as it is made: deltas, then one Finish. The caller reads it to its end or closes it.

        Raises as `generate` does.
        """
        ...


class Sessions(Protocol):
    """Keeps conversations for a time, by the names of their sessions. Those of one tenant are not another's."""

    async def read(self, session: str, messages_max: int) -> tuple[ChatMessage, ...]:
        """The newest messages, oldest first; none where nothing is kept. Raises BackendUnavailable."""
        ...

    async def append(self, session: str, messages: Sequence[ChatMessage]) -> None:
        """Adds messages, all or none. Raises BackendUnavailable."""
        ...

    async def forget(self, session: str) -> None:
        """Forgets a session's messages. Raises BackendUnavailable."""
        ...


class Subflows(Protocol):
    """The flows of the gateway, for a node that runs another one."""

    async def run(self, flow_id: str, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        """Runs a flow in `run`, a child of the calling one; its outputs as edges carry them. Raises FlowNotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Everything outside of a flow that its nodes may call."""

    retriever: Retriever
    generator: Generator
    sessions: Sessions
    subflows: Subflows
