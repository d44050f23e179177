"""A model's configuration to a loaded embedder: which backend runs it, and why not another."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.errors import CannotPrepare, FailedPrecondition
from retrieval_svc.embedding.embedder import Embedder
from retrieval_svc.embedding.prepared import PreparedEmbedder, Run
from retrieval_svc.embedding.preparing import Backend, Prepared, prepare
from retrieval_svc.embedding.prompts import Prompts
from retrieval_svc.embedding.source import find_source

_log = logging.getLogger(__name__)

_PACKAGES: Final = {Backend.OPENVINO: "openvino", Backend.ONNXRUNTIME: "onnxruntime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model to load. `reference` as penstock.model_files has it. A prompt that is None is the model's own."""

    name: str
    reference: str
    backend: Backend = Backend.AUTO
    query_prompt: str | None = None
    document_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An embedder and the prompts that its texts get."""

    embedder: Embedder
    prompts: Prompts


def load(config: ModelConfig, *, cache_dir: Path, threads: int) -> Loaded:
    """Loads a model. Takes seconds, and more the first time; call it off the event loop.

    `auto` is OpenVINO in 8 bits, for queries and passages alike: of the backends it was the fastest at both, and so an index
    has one precision on both its sides. A model that cannot be exported, or a machine without OpenVINO, gets torch.
    Raises FailedPrecondition when the model is not there, or cannot be brought to the backend that was asked for.
    """
    if config.backend is Backend.TORCH:
        return _load_torch(config, threads)
    if config.backend is not Backend.AUTO:
        return _load_prepared(config, config.backend, cache_dir, threads)
    try:
        return _load_prepared(config, Backend.OPENVINO, cache_dir, threads)
    except CannotPrepare as why:
        _log.warning("%s runs on torch, which is slower: %s", config.name, why.message)
        return _load_torch(config, threads)


def _load_torch(config: ModelConfig, threads: int) -> Loaded:
    # Imported here: torch is a second and half a gigabyte, and prepared models do without.
    from retrieval_svc.embedding.sentence_transformer import load_embedder  # noqa: PLC0415

    embedder = load_embedder(config.reference, name=config.name, threads=threads)
    return Loaded(embedder=embedder, prompts=_prompts(config, *embedder.own_prompts))


def _load_prepared(config: ModelConfig, backend: Backend, cache_dir: Path, threads: int) -> Loaded:
    package = _PACKAGES[backend]
    if importlib.util.find_spec(package) is None:
        message = f"{package} is not installed: pip install {package}, or set the backend of {config.name!r} to torch"
        raise CannotPrepare(message)
    prepared = prepare(find_source(config.reference), backend, cache_dir)
    embedder = PreparedEmbedder(prepared, _open(backend, prepared, threads), name=config.name)
    described = prepared.description
    _log.info("loaded %s: %s", config.reference, embedder.model.fingerprint)
    return Loaded(embedder=embedder, prompts=_prompts(config, described.query_prompt, described.document_prompt))


def _open(backend: Backend, prepared: Prepared, threads: int) -> Run:
    try:
        if backend is Backend.OPENVINO:
            from retrieval_svc.embedding.openvino_runtime import open_openvino  # noqa: PLC0415  # Each may be missing.

            return open_openvino(prepared.folder, threads=threads)
        from retrieval_svc.embedding.onnx_runtime import open_onnx  # noqa: PLC0415

        return open_onnx(prepared.folder, threads=threads)
    except Exception as error:
        message = (
            f"the prepared model in {prepared.folder} cannot be opened ({type(error).__name__}: {error}); "
            "delete that folder, and the next start makes it anew"
        )
        raise FailedPrecondition(message) from error


def _prompts(config: ModelConfig, query: str, document: str) -> Prompts:
    return Prompts(
        query=query if config.query_prompt is None else config.query_prompt,
        document=document if config.document_prompt is None else config.document_prompt,
    )
