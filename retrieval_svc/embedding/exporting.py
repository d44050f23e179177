"""The child that prepares a model: `python -m retrieval_svc.embedding.exporting BACKEND SOURCE TARGET`.

The whole of sentence-transformers' modules is exported, pooling and normalising included, so that nothing of them is written
twice; and the result is compared with the original over texts of several lengths, because an export may be wrong in silence.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from retrieval_svc.embedding.prepared import PreparedEmbedder, Run
from retrieval_svc.embedding.preparing import DESCRIPTION, RECIPES, TOKENIZER, Backend, Prepared, refuse, write_json
from retrieval_svc.embedding.sentence_transformer import Exportable, describe_export, export_modules, open_transformer
from retrieval_svc.values import Matrix

_COSINE_MIN: Final = 0.98
"""To the original. 8 bits were measured at 0.999; a graph that lost its pooling or its mask is far below."""
_SENTENCE: Final = "The quick brown fox jumps over the lazy dog, which sleeps near river No. 42. "
_PROBES: Final = (
    "Who wrote it?",
    _SENTENCE,
    "Grüße aus München, 3 °C und Regen.",
    _SENTENCE * 12,
    "def add(a, b):\n    return a + b  # sums\n" * 6,
)


def _openvino(exportable: Exportable, target: Path) -> Run:
    from retrieval_svc.embedding.openvino_export import export_openvino  # noqa: PLC0415  # Each backend may be missing.
    from retrieval_svc.embedding.openvino_runtime import open_openvino  # noqa: PLC0415

    export_openvino(exportable, target)
    return open_openvino(target, threads=os.cpu_count() or 1)


def _onnxruntime(exportable: Exportable, target: Path) -> Run:
    from retrieval_svc.embedding.onnx_export import export_onnx  # noqa: PLC0415
    from retrieval_svc.embedding.onnx_runtime import open_onnx  # noqa: PLC0415

    export_onnx(exportable, target)
    return open_onnx(target, threads=os.cpu_count() or 1)


_EXPORTS: Final[Mapping[Backend, Callable[[Exportable, Path], Run]]] = {
    Backend.OPENVINO: _openvino,
    Backend.ONNXRUNTIME: _onnxruntime,
}


def main(backend: Backend, source: Path, target: Path) -> None:
    """Exports, checks, describes. Ends the process with a reason where the model is not one that can be exported."""
    transformer = open_transformer(str(source))
    described = describe_export(transformer)
    if described is None:
        refuse(target, f"the model in {source} has no tokenizer or window that can be exported; set the backend to torch")
    description, tokenizer = described
    (target / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    try:
        run = _EXPORTS[backend](export_modules(transformer), target)
        prepared = Prepared(folder=target, recipe=RECIPES[backend], digest="", description=description)
        ours = PreparedEmbedder(prepared, run, name="export").embed(_PROBES)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001  # Tracing runs the model's own code and may fail in any way.
        refuse(target, f"the model in {source} cannot be exported to {backend.value} ({type(error).__name__}: {error})")
    cosine = _cosine(ours, transformer.encode(list(_PROBES), show_progress_bar=False, prompt=""))
    if not cosine >= _COSINE_MIN:
        refuse(
            target,
            f"{backend.value} makes other vectors of {source} than torch does (cosine {cosine:.4f}); set the backend to torch",
        )
    write_json(target / DESCRIPTION, asdict(description))


def _cosine(ours: Matrix, theirs: Matrix) -> float:
    """The least over the texts."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(Backend(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    sys.stderr.flush()
    os._exit(0)
