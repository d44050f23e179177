"""`python -m generation_svc.checkpoints`: checkpoints for vLLM, of a GGUF file or quantised from any Hugging Face folder.

    GGUF file   -> bf16     its weights unpacked by transformers                            (from_gguf)
    HF folder   -> W8A8     int8 weights per output channel, int8 activations per token, in compressed-tensors' format:
                            rounded to the nearest, by compressed-tensors' own functions    (rounding)
                            or calibrated with texts, by llm-compressor                     (calibrated)

The first and second need vLLM's environment (make vllm), the third llm-compressor's (make llm-compressor): the two want
different versions of transformers and compressed-tensors. A checkpoint is a folder that appears whole or not at all, with a
manifest of what it was made from; a second run finds it and verifies it. Read making first; hugging_face says which layers are
quantised.
"""

from generation_svc.checkpoints.calibrated import Calibration
from generation_svc.checkpoints.making import METHODS, Method, prepare, quantise
from generation_svc.checkpoints.manifest import MANIFEST, Checkpoint, prepared

__all__ = ["MANIFEST", "METHODS", "Calibration", "Checkpoint", "Method", "prepare", "prepared", "quantise"]
