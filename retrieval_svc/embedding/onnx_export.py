"""A model's modules to ONNX, the weights of its linear layers in 8 bits.

As for OpenVINO: whole numbers in groups of 64 with a scale each, activations rounded in groups while the model runs
(MatMulNBits at accuracy level 4). onnxruntime's own dynamic quantisation, one scale for a whole batch, was faster, but made a
text's vector depend on the texts beside it: cosine 0.993 between a query alone and the same query among others.
"""

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retrieval_svc.embedding.onnx_runtime import GRAPH
from retrieval_svc.embedding.sentence_transformer import Exportable

_OPSET: Final = 17
_GROUP: Final = 64
_INT8_ACTIVATIONS: Final = 4
_ZERO: Final = 128
_TINY: Final = 1e-12


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
    model = onnx.load(whole)
    compress_weights(model)
    onnx.save(model, target / GRAPH)
    whole.unlink()


def compress_weights(model: onnx.ModelProto) -> int:
    """Puts the weights of the linear layers in 8 bits, in place. Returns how many layers those are."""
    graph, count = model.graph, 0
    constants = {constant.name: constant for constant in graph.initializer}
    for place, node in enumerate(graph.node):
        constant = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if constant is None or len(constant.dims) != 2 or constant.dims[0] % _GROUP:
            continue
        whole, scales = _eight_bits(numpy_helper.to_array(constant).T)
        names = [f"{node.name}.whole", f"{node.name}.scales"]
        graph.initializer.extend([numpy_helper.from_array(whole, names[0]), numpy_helper.from_array(scales, names[1])])
        inputs, outputs = constant.dims
        attributes: dict[str, Any] = {
            "K": inputs,
            "N": outputs,
            "bits": 8,
            "block_size": _GROUP,
            "accuracy_level": _INT8_ACTIVATIONS,
        }
        product = helper.make_node(
            "MatMulNBits", [node.input[0], *names], list(node.output), name=node.name, domain="com.microsoft", **attributes
        )
        graph.node[place].CopyFrom(product)
        count += 1
    _drop_unread(graph)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return count


def _eight_bits(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights of shape (outputs, inputs) as whole numbers around 128, shape (outputs, groups, group), and flat scales."""
    outputs, inputs = rows.shape
    grouped = rows.reshape(outputs, inputs // _GROUP, _GROUP)
    scales = np.maximum(np.abs(grouped).max(axis=2, keepdims=True), _TINY).astype(np.float32) / np.float32(127)
    return (np.rint(grouped / scales) + _ZERO).astype(np.uint8), scales.reshape(-1)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
