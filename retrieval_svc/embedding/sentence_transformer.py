"""sentence-transformers. The only module that imports it."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model
from retrieval_svc.embedding.preparing import Description
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix

_log = logging.getLogger(__name__)


class SentenceTransformerEmbedder:
    """A sentence-transformers model in memory. Implements the port of retrieval_svc.embedding."""

    def __init__(self, transformer: SentenceTransformer, name: str) -> None:
        self._transformer = transformer
        # The model's own tokenizer is told anew at each pass how to truncate and pad, which other threads must not meet.
        self._tokenizer: Tokenizer = Tokenizer.from_str(transformer.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model = _describe(transformer, self._tokenizer, name)

    @property
    def model(self) -> EmbeddingModel:
        """What is loaded."""
        return self._model

    @property
    def own_prompts(self) -> tuple[str, str]:
        """What the model itself puts before a query and before a document."""
        return prompts_of(self._transformer)

    def token_spans(self, text: str) -> list[Span]:
        """The spans of the text's tokens."""
        spans: list[Span] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return spans

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text."""
        vectors = self._transformer.encode(list(texts), batch_size=len(texts), show_progress_bar=False, prompt="")
        return np.ascontiguousarray(vectors, dtype=np.float32)


def load_embedder(reference: str, *, name: str, threads: int) -> SentenceTransformerEmbedder:
    """Loads a model from an installed package, a folder or a hub, and sets the threads of torch, which are the process's.

    Raises FailedPrecondition when the model is not there or cannot be read. Takes seconds; call it off the event loop.
    """
    torch.set_num_threads(threads)
    transformer = open_transformer(reference)
    embedder = SentenceTransformerEmbedder(transformer, name)
    _log.info("loaded %s: %s", reference, embedder.model.fingerprint)
    return embedder


def open_transformer(reference: str) -> SentenceTransformer:
    """The model in memory, on the CPU. Raises FailedPrecondition when it is not there or cannot be read."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # A service's log is no place to draw in.
    path = locate_model(reference)
    try:
        return SentenceTransformer(path, device="cpu")
    except Exception as error:
        message = (
            f"the embedding model {reference!r} cannot be loaded ({type(error).__name__}: {error}); "
            "name an installed package (package:NAME/PATH), a folder, or a model of a hub that can be reached"
        )
        raise FailedPrecondition(message) from error


def prompts_of(transformer: SentenceTransformer) -> tuple[str, str]:
    """What the model itself puts before a query and before a document."""
    prompts: Mapping[str, str | None] = transformer.prompts
    document = prompts.get("document") or prompts.get("passage") or prompts.get("corpus")
    return prompts.get("query") or "", document or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """All modules of a model as one, from (input_ids, attention_mask) to vectors, and an example of what it takes."""

    module: torch.nn.Module
    example: Mapping[str, torch.Tensor]


class _Whole(torch.nn.Module):
    def __init__(self, transformer: SentenceTransformer) -> None:
        super().__init__()
        self._transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors: torch.Tensor = self._transformer(features)["sentence_embedding"]
        return vectors


def export_modules(transformer: SentenceTransformer) -> Exportable:
    """The whole model, ready to be traced."""
    ids = torch.ones(2, 7, dtype=torch.int64)
    # On the wrapper: tracing sets the mode that it finds there, and in training mode dropout would be traced.
    return Exportable(module=_Whole(transformer).eval(), example={"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def describe_export(transformer: SentenceTransformer) -> tuple[Description, str] | None:
    """What a prepared copy of the model is, and its tokenizer as JSON; None where it has no such tokenizer or no window."""
    backend = getattr(transformer.tokenizer, "backend_tokenizer", None)
    window, dimension = transformer.get_max_seq_length(), transformer.get_embedding_dimension()
    if backend is None or window is None or dimension is None or transformer.tokenizer.padding_side != "right":
        return None
    tokenizer = Tokenizer.from_str(backend.to_str())
    query_prompt, document_prompt = prompts_of(transformer)
    description = Description(
        dimension=dimension,
        window=window,
        window_tokens=window - tokenizer.num_special_tokens_to_add(is_pair=False),
        steps=_steps(transformer),
        pad_id=transformer.tokenizer.pad_token_id or 0,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )
    return description, backend.to_str()


def _describe(transformer: SentenceTransformer, tokenizer: Tokenizer, name: str) -> EmbeddingModel:
    dimension = transformer.get_embedding_dimension()
    window = transformer.get_max_seq_length()
    if dimension is None or window is None:
        message = f"the model {name!r} does not say its dimension and its window, so it cannot be used"
        raise FailedPrecondition(message)
    return EmbeddingModel(
        name=name,
        dimension=dimension,
        window_tokens=window - tokenizer.num_special_tokens_to_add(is_pair=False),
        fingerprint=_fingerprint(transformer, tokenizer, name, window),
        backend=f"torch {_precision(transformer)}",
    )


def _fingerprint(transformer: SentenceTransformer, tokenizer: Tokenizer, name: str, window: int) -> str:
    """What makes the vectors, to read and to compare: name, precision, window, pooling, and a hash over weights and tokens.

    The hash is over the weights in memory, so that it does not matter where they came from.
    """
    digest = hashlib.sha256(tokenizer.to_str().encode())
    state = transformer.state_dict()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"{name}/{_precision(transformer)}/{window}/{_steps(transformer)}/{digest.hexdigest()[:16]}"


def _precision(transformer: SentenceTransformer) -> str:
    return str(transformer.dtype).removeprefix("torch.")


def _steps(transformer: SentenceTransformer) -> str:
    return "+".join(_step(module) for module in list(transformer)[1:])


def _step(module: Any) -> str:
    """What a module does to the tokens' vectors: a way of pooling, "normalize", or the like."""
    return str(module.get_config_dict().get("pooling_mode", type(module).__name__)).lower()
