"""OpenVINO, running. The only module that the service imports it through."""

from pathlib import Path
from typing import Final

import numpy as np
import openvino as ov

from retrieval_svc.embedding.prepared import Run, TokenMatrix
from retrieval_svc.values import Matrix

GRAPH: Final = "openvino.xml"
_DYNAMIC_GROUP: Final = 64
"""Activations that share a scale. 32 was a tenth slower and hardly nearer to the original; 128 was further from it."""


def open_openvino(folder: Path, *, threads: int) -> Run:
    """Compiles the graph for this machine's CPU: any number of texts of any length, without compiling again."""
    compiled = ov.Core().compile_model(
        folder / GRAPH,
        "CPU",
        {
            # Left to itself OpenVINO computes in bfloat16 where the processor can, and two machines would make two vectors.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _DYNAMIC_GROUP,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # Neighbours on the same cores would find us sitting on theirs.
        },
    )
    request = compiled.create_infer_request()

    def run(ids: TokenMatrix, mask: TokenMatrix) -> Matrix:
        request.infer({0: ids, 1: mask}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run
