"""A typed client of generation.v1: answers of language models, whole or as they are made.

    async with GenerationClient("127.0.0.1:50052") as client:
        answer = await client.generate([Message(role="user", content="Why is the sky blue?")], sampling=Sampling(max_tokens=64))

Messages go through the model's own chat template; a raw prompt does not.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, Unpack

from penstock.clients.connection import LONG_TIMEOUT_S, TIMEOUT_S, Client, items_of, resource_name
from penstock.clients.generation_messages import delta_of, ending_of, filled, load_of, logprobs_of, model_of, vector_of
from penstock.clients.generation_values import (
    Alternative,
    Answer,
    Delta,
    Finished,
    FinishReason,
    Load,
    LogprobOptions,
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
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1.generation_pb2_grpc import GenerationServiceStub

__all__ = [
    "Alternative",
    "Answer",
    "Delta",
    "FinishReason",
    "Finished",
    "GenerationClient",
    "Load",
    "LogprobOptions",
    "Message",
    "Model",
    "More",
    "Role",
    "Sampling",
    "StructuredOutput",
    "Timings",
    "TokenLogprob",
    "Usage",
]


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
        **more: Unpack[More],
    ) -> Answer:
        """The whole answer. `more` is what else may be asked; see More."""
        request = filled(pb.GenerateRequest(), messages, prompt=prompt, model=model, sampling=sampling, more=more)
        response = await self._call(self._stub.Generate, request, timeout_s)
        return Answer(text=response.text, logprobs=logprobs_of(response.logprobs), **ending_of(response))

    async def stream(
        self,
        messages: Sequence[Message] = (),
        *,
        prompt: str = "",
        model: str = "default",
        sampling: Sampling | None = None,
        timeout_s: float = LONG_TIMEOUT_S,
        **more: Unpack[More],
    ) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it is made: deltas, then one Finished. Leaving the loop stops the model's work."""
        request = filled(pb.StreamGenerateRequest(), messages, prompt=prompt, model=model, sampling=sampling, more=more)
        async with aclosing(self._stream(self._stub.StreamGenerate, request, timeout_s)) as events:
            async for event in events:
                if event.HasField("delta"):
                    yield delta_of(event.delta)
                elif event.HasField("done"):
                    yield Finished(**ending_of(event.done))

    async def models(self, *, timeout_s: float = TIMEOUT_S) -> tuple[Model, ...]:
        """The models that are served, the default one first."""
        pages = self._pages(self._stub.ListModels, pb.ListModelsRequest(), timeout_s)
        return tuple([model_of(model) async for model in items_of(pages, "models")])

    async def embed(
        self, texts: Sequence[str], *, model: str = "default", timeout_s: float = LONG_TIMEOUT_S
    ) -> tuple[tuple[float, ...], ...]:
        """A vector for each text, by a pooling model that has the feature "embed"."""
        request = pb.EmbedRequest(model=resource_name("models", model), texts=texts)
        response = await self._call(self._stub.Embed, request, timeout_s)
        return tuple(map(vector_of, response.vectors))

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str = "default", timeout_s: float = LONG_TIMEOUT_S
    ) -> tuple[float, ...]:
        """How well each document answers the query, larger is better, by a pooling model that has the feature "rerank"."""
        request = pb.RerankRequest(model=resource_name("models", model), query=query, documents=documents)
        response = await self._call(self._stub.Rerank, request, timeout_s)
        return tuple(response.scores)

    async def load(self, *, timeout_s: float = TIMEOUT_S) -> Load:
        """What the service works on now."""
        return load_of(await self._call(self._stub.GetLoad, pb.GetLoadRequest(), timeout_s))

    @cached_property
    def _stub(self) -> Any:
        return GenerationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.
