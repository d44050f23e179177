"""The two ports through which nodes reach other services. clients.py implements them over gRPC, tests with fakes."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

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
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One question to a model. `model` is its name alone, such as "default"; an empty `system` is none.

    `session` names a conversation whose prompts begin alike, so that they are answered where its beginning is cached; it is not
    sent. Empty: none, and the prompt itself tells.
    """

    model: str
    prompt: str
    system: str = ""
    session: str = ""
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of an answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an answer ended. Tokens are counted by the model's own tokenizer; `reason` is "stop" or "length".

    `cached_tokens` are those of the input that the engine found in its prefix cache.
    """

    reason: str
    input_tokens: int
    output_tokens: int
    model: str
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    text: str
    finish: Finish


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Everything outside the gateway that nodes may call."""

    retriever: Retriever
    generator: Generator
