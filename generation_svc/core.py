"""What every service of this kind has, whatever its model does: models by their names, the queue, the load.

    Core
      Generation    answers prompts
      Pooling       turns texts into vectors and scores

A core refuses by name what its kind of model can't do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from generation_svc import features
from generation_svc.admission import Admission
from generation_svc.engine import (
    Answer,
    Embeddings,
    Feature,
    Finished,
    GenerationRequest,
    Load,
    ModelHost,
    ModelInfo,
    Scores,
    TokenLogprob,
)
from penstock.errors import EngineFailed, InvalidArgument, ModelNotFound

MODEL_PREFIX: Final = "models/"
DEFAULT_MODEL: Final = "default"


@dataclass(slots=True, kw_only=True)
class Text:
    """The text of one answer as it was put together, and its tokens where their log probabilities were asked for."""

    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeAnswer:
    """What was waited for: the texts of all answers, the first of which `finished` speaks of."""

    texts: tuple[Text, ...]
    finished: Finished


class Core:
    """One engine behind one queue."""

    def __init__(self, host: ModelHost, admission: Admission) -> None:
        self._host = host
        self.admission = admission

    def models(self) -> tuple[ModelInfo, ...]:
        """What is served; the first is "models/default"."""
        return self._host.models()

    def load(self) -> Load:
        """What the engine works on."""
        return self._host.load()

    def find_model(self, name: str) -> ModelInfo:
        """The model of a resource name. Raises InvalidArgument for what is no such name, ModelNotFound for no such model."""
        short = name.removeprefix(MODEL_PREFIX)
        if short == name or not short or "/" in short:
            message = f'model is {name!r}, must be "models/" and a name, such as "models/{DEFAULT_MODEL}"'
            raise InvalidArgument(message, metadata={"field": "model"})
        served = self.models()
        if short == DEFAULT_MODEL:
            return served[0]
        for model in served:
            if model.name == short:
                return model
        names = ", ".join(f"{MODEL_PREFIX}{model.name}" for model in served)
        message = f"no model {name!r} is served here; there is {names}"
        raise ModelNotFound(message, metadata={"model": name, "served": names})

    def check_alive(self) -> None:
        """Raises EngineFailed when the engine is dead."""
        if not self._host.health():
            raise EngineFailed("the engine has died; this process is about to leave and be restarted")

    async def whole(self, model: ModelInfo, request: GenerationRequest) -> WholeAnswer:  # noqa: ARG002  # Of those who can.
        """The answers to a prompt, when they are complete."""
        raise features.unsupported(model, Feature.GENERATE)

    def stream(self, model: ModelInfo, request: GenerationRequest) -> Answer:  # noqa: ARG002
        """The answers as they are made: deltas, coalesced, and at last Finished. The caller closes it."""
        raise features.unsupported(model, Feature.GENERATE)

    async def embed(self, model: ModelInfo, texts: Sequence[str], tenant: str) -> Embeddings:  # noqa: ARG002
        """A vector for each text."""
        raise features.unsupported(model, Feature.EMBED)

    async def rerank(self, model: ModelInfo, query: str, documents: Sequence[str], tenant: str) -> Scores:  # noqa: ARG002
        """A score for each document."""
        raise features.unsupported(model, Feature.RERANK)
