"""onnxruntime, running. The only module that the service imports it through."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from retrieval_svc.embedding.prepared import Run, TokenMatrix
from retrieval_svc.values import Matrix

GRAPH: Final = "model.onnx"


def open_onnx(folder: Path, *, threads: int) -> Run:
    """Loads the graph: any number of texts of any length."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for each other sleep instead of spinning, as OMP_WAIT_POLICY has it for the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])

    def run(ids: TokenMatrix, mask: TokenMatrix) -> Matrix:
        (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, dtype=np.float32)

    return run
