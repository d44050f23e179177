"""All the models of a service, by name; and whether they are those that its collections were made with."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import EmbeddingMismatch, ModelNotFound
from retrieval_svc.embedding.batching import Embeddings
from retrieval_svc.embedding.embedder import Purpose
from retrieval_svc.embedding.loading import Loaded, ModelConfig
from retrieval_svc.values import CollectionSpec, EmbeddingModel, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedTexts:
    """Vectors, one a text, the tokens of all, and what made them."""

    vectors: Matrix
    token_count: int
    model: EmbeddingModel


class EmbeddingModels:
    """The loaded models, each with a thread and lanes of its own. The first is the default."""

    def __init__(self, models: Mapping[str, Embeddings]) -> None:
        self._models = dict(models)

    @classmethod
    async def load(
        cls,
        configs: Sequence[ModelConfig],
        *,
        load: Callable[[ModelConfig], Loaded],
        start: Callable[[Loaded], Embeddings],
    ) -> "EmbeddingModels":
        """Loads all at once, each on a thread. Raises what the first that fails raises, when all have come to an end."""
        outcomes = await asyncio.gather(*(asyncio.to_thread(load, config) for config in configs), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        loaded = [outcome for outcome in outcomes if isinstance(outcome, Loaded)]
        return cls({config.name: start(each) for config, each in zip(configs, loaded, strict=True)})

    @property
    def default(self) -> str:
        """The name of the model of collections that name none; empty: none is loaded."""
        return next(iter(self._models), "")

    @property
    def models(self) -> Mapping[str, EmbeddingModel]:
        """What is loaded, by name, the default first."""
        return {name: each.model for name, each in self._models.items()}

    @property
    def all(self) -> tuple[Embeddings, ...]:
        """The embeddings, the default's first."""
        return tuple(self._models.values())

    def for_name(self, name: str) -> Embeddings:
        """A model by its name, or the default for the empty one. Raises ModelNotFound, naming those that there are."""
        found = self._models.get(name or self.default)
        if found is None:
            names = ", ".join(map(repr, self._models)) or "none"
            message = f"no embedding model {name!r} is loaded; there are: {names}" if name else "no embedding model is loaded"
            raise ModelNotFound(message, metadata={"model": name, "loaded": ",".join(self._models)})
        return found

    async def embed(self, name: str, texts: Sequence[str], *, is_query: bool) -> EmbeddedTexts:
        """A vector a text. Queries go by the lane of searches, documents by that of writes.

        Raises ModelNotFound, and Overloaded when too many queries wait.
        """
        embeddings = self.for_name(name)
        vectors, token_count = await embeddings.embed(texts, Purpose.QUERY if is_query else Purpose.DOCUMENT)
        return EmbeddedTexts(vectors=vectors, token_count=token_count, model=embeddings.model)

    async def warm(self) -> None:
        """Has each model embed once, because first passes are slower."""
        for each in self._models.values():
            await each.query("The first pass is slower than those that follow, so it is taken here.")

    async def close(self) -> None:
        """Ends the models' threads."""
        await asyncio.gather(*(each.close() for each in self._models.values()))


def check_fingerprints(collections: Iterable[CollectionSpec], models: Iterable[EmbeddingModel]) -> None:
    """Raises one EmbeddingMismatch that names every collection whose vectors the loaded models did not make.

    A collection whose model is not loaded at all is one of them: its texts could neither be found nor added to.
    """
    loaded = {model.name: model for model in models}
    faults = [
        f"{spec.id!r} was made with {spec.embedding_fingerprint}, and {_instead(loaded.get(spec.embedding_model), spec)}"
        for spec in collections
        if spec.embedding_model and not _fits(loaded.get(spec.embedding_model), spec)
    ]
    if faults:
        message = (
            f"{len(faults)} collections do not fit the loaded embedding models: {'; '.join(faults)}. "
            "Load the models that made them (their backend and prompts are part of it), or delete and ingest them again"
        )
        raise EmbeddingMismatch(message)


def _fits(model: EmbeddingModel | None, spec: CollectionSpec) -> bool:
    return model is not None and model.fingerprint == spec.embedding_fingerprint


def _instead(model: EmbeddingModel | None, spec: CollectionSpec) -> str:
    return f"{model.fingerprint} is loaded" if model else f"no model {spec.embedding_model!r} is loaded"
