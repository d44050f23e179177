"""What a model wants to read before a text, which is not the same before a query and before a document."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from penstock.errors import FailedPrecondition
from retrieval_svc.embedding.embedder import Embedder, Purpose
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The two prompts; empty: none."""

    query: str = ""
    document: str = ""

    def of(self, purpose: Purpose) -> str:
        """The prompt of a purpose."""
        return self.query if purpose is Purpose.QUERY else self.document


NO_PROMPTS: Final = Prompts()


class PromptedEmbedder:
    """An embedder for texts that get a prompt. Every window of a text has the prompt, and that much less room for the text."""

    def __init__(self, embedder: Embedder, prompt: str, fingerprint: str) -> None:
        self._embedder = embedder
        self._prompt = prompt
        room = embedder.model.window_tokens - len(embedder.token_spans(prompt))
        if room < 1:
            message = f"a prompt of the model {embedder.model.name!r} fills its window; set a shorter one"
            raise FailedPrecondition(message)
        self._model = replace(embedder.model, window_tokens=room, fingerprint=fingerprint)

    @property
    def model(self) -> EmbeddingModel:
        """The model, with the window that the prompt leaves."""
        return self._model

    def token_spans(self, text: str) -> list[Span]:
        """The spans of the text's own tokens."""
        return self._embedder.token_spans(text)

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text."""
        return self._embedder.embed([self._prompt + text for text in texts])


def prompted(embedder: Embedder, prompts: Prompts) -> dict[Purpose, Embedder]:
    """The embedder for each purpose. Where a prompt is not empty, it is part of the fingerprint of both."""
    if prompts == NO_PROMPTS:
        return dict.fromkeys(Purpose, embedder)
    digest = hashlib.sha256(f"{prompts.query}\0{prompts.document}".encode()).hexdigest()[:8]
    fingerprint = f"{embedder.model.fingerprint}/prompts-{digest}"
    return {purpose: PromptedEmbedder(embedder, prompts.of(purpose), fingerprint) for purpose in Purpose}
