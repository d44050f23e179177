"""A typed client of generation.v1: answers of language models, whole or as they are made.

    async with GenerationClient("127.0.0.1:50052") as client:
        answer = await client.generate([Message(role="user", content="Why is the sky blue?")], sampling=Sampling(max_tokens=64))

Messages go through the model's own chat template; a raw prompt does not.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal

from penstock.clients.choices import chosen
from penstock.clients.connection import LONG_TIMEOUT_S, TIMEOUT_S, Client, items_of, resource_name, short_name
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1.generation_pb2_grpc import GenerationServiceStub

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
    """How tokens are chosen and when to stop. None: the engine's default for the model. Ranges are in the proto."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of an answer: the text to append and how many tokens it is."""

    text: str
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a streamed answer ended. Always the last event."""

    finish_reason: FinishReason
    matched_stop: str
    usage: Usage
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that is served. `context_window` is in tokens, 0 where it is not known; so is an empty `precision`."""

    name: str
    engine: str
    context_window: int
    precision: str


class GenerationClient(Client):
    """Calls a generation service. Failures are raised as the PenstockError that the service raised.

    Exactly one of `messages` (put into the model's chat template) and `prompt` (given as it is) must hold something.
    Expect ModelNotFound, PromptTooLong, InvalidArgument and Overloaded; BackendUnavailable where nobody answers.
    """

    service = "generation"

    async def generate(
        self,
        messages: Sequence[Message] = (),
        *,
        prompt: str = "",
        model: str = "default",
        sampling: Sampling | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> Answer:
        """The whole answer."""
        request = pb.GenerateRequest(
            model=resource_name("models", model), messages=_turns(messages), prompt=prompt, sampling=_sampling(sampling)
        )
        response = await self._call(self._stub.Generate, request, timeout_s)
        return Answer(text=response.text, **_ending(response))

    async def stream(
        self,
        messages: Sequence[Message] = (),
        *,
        prompt: str = "",
        model: str = "default",
        sampling: Sampling | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
    ) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it is made: deltas, then one Finished. Leaving the loop stops the model's work."""
        request = pb.StreamGenerateRequest(
            model=resource_name("models", model), messages=_turns(messages), prompt=prompt, sampling=_sampling(sampling)
        )
        async with aclosing(self._stream(self._stub.StreamGenerate, request, timeout_s)) as events:
            async for event in events:
                if event.HasField("delta"):
                    yield Delta(text=event.delta.text, token_count=event.delta.token_count)
                elif event.HasField("done"):
                    yield Finished(**_ending(event.done))

    async def models(self, *, timeout_s: float = TIMEOUT_S) -> tuple[Model, ...]:
        """The models that are served, the default one first."""
        pages = self._pages(self._stub.ListModels, pb.ListModelsRequest(), timeout_s)
        return tuple([_model(model) async for model in items_of(pages, "models")])

    @cached_property
    def _stub(self) -> Any:
        return GenerationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.


_ROLES: Final[dict[Role, pb.Role]] = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
_FINISH_REASONS: Final[dict[int, FinishReason]] = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


def _turns(messages: Sequence[Message]) -> list[pb.Message]:
    return [
        pb.Message(role=chosen(_ROLES, message.role, f"messages[{at}].role"), content=message.content)
        for at, message in enumerate(messages)
    ]


def _sampling(sampling: Sampling | None) -> pb.Sampling | None:
    if sampling is None:
        return None
    return pb.Sampling(**{field.name: getattr(sampling, field.name) for field in fields(sampling)})


def _ending(done: Any) -> dict[str, Any]:
    return {
        "finish_reason": _FINISH_REASONS.get(done.finish_reason, ""),
        "matched_stop": done.matched_stop,
        "usage": Usage(
            input_tokens=done.usage.input_tokens,
            output_tokens=done.usage.output_tokens,
            cached_tokens=done.usage.cached_tokens,
        ),
        "model": short_name(done.model),
    }


def _model(model: pb.Model) -> Model:
    return Model(
        name=short_name(model.name), engine=model.engine, context_window=model.context_window, precision=model.precision
    )
