"""A model's modules to ONNX, the weights of its linear layers in 8 bits; activations are rounded while it runs."""

import warnings
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from retrieval_svc.embedding.onnx_runtime import GRAPH
from retrieval_svc.embedding.sentence_transformer import Exportable

_OPSET = 17


def export_onnx(exportable: Exportable, target: Path) -> None:
    """Writes the graph into the folder. Raises what tracing raises."""
    whole = target / "whole.onnx"
    shape = {0: "texts", 1: "tokens"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # The exporter that needs no further packages is announced to go, and says so.
        torch.onnx.export(
            exportable.module,
            tuple(exportable.example.values()),
            str(whole),
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(exportable.example),
            output_names=["vectors"],  # "embedding" would be the name of a node as well.
            dynamic_axes={**dict.fromkeys(exportable.example, shape), "vectors": {0: "texts"}},
        )
    quantize_dynamic(whole, target / GRAPH, weight_type=QuantType.QInt8, per_channel=True)
    whole.unlink()
