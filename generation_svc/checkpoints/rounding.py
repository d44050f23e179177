"""HF folder -> W8A8 by rounding to the nearest, with compressed-tensors' own functions and nothing else.

Each weight matrix is scaled by the largest value of each of its rows (an output channel); activations are scaled by token while
the model runs, so that no texts are needed to calibrate. One file of weights is in memory at a time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from generation_svc.checkpoints.hugging_face import INDEX, HuggingFaceFolder
from generation_svc.checkpoints.libraries import imported
from generation_svc.checkpoints.manifest import OnStep
from penstock.errors import FailedPrecondition


def round_to_nearest(source: HuggingFaceFolder, target: Path, on_step: OnStep) -> None:
    """Writes the whole checkpoint into the folder `target`. Raises FailedPrecondition for weights that are not numbers."""
    quantization, safetensors = imported("compressed_tensors.quantization"), imported("safetensors.torch")
    scheme = quantization.preset_name_to_scheme("W8A8", ["Linear"])
    linear, weight_map, bytes_total = source.linear_weights(), dict[str, str](), 0
    for number, shard in enumerate(source.shards):
        label = f"file {number + 1} of {len(source.shards)}"
        tensors = _quantised_shard(source.path / shard, linear, scheme.weights, label, on_step)
        safetensors.save_file(tensors, target / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard)
        bytes_total += sum(tensor.nbytes for tensor in tensors.values())
    if len(source.shards) > 1:
        index = {"metadata": {"total_size": bytes_total}, "weight_map": weight_map}
        (target / INDEX).write_text(json.dumps(index, indent=1))
    whole = quantization.QuantizationConfig(
        config_groups={"group_0": scheme},
        ignore=source.kept_layers(),
        quantization_status="compressed",
        format="int-quantized",
    )
    config = {**source.config, "quantization_config": json.loads(whole.model_dump_json())}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    for file in source.other_files():
        shutil.copy(file, target)


def _quantised_shard(file: Path, linear: frozenset[str], weight_args: Any, label: str, on_step: OnStep) -> dict[str, Any]:
    made: dict[str, Any] = {}
    with imported("safetensors").safe_open(file, framework="pt") as shard:
        names = list(shard.keys())
        for number, name in enumerate(names):
            if name in linear:
                weight, scale = _quantised(name, shard.get_tensor(name).float(), weight_args)
                made |= {name: weight, name.removesuffix("weight") + "weight_scale": scale}
            else:
                made[name] = shard.get_tensor(name)
            on_step(f"quantising {label}", number + 1, len(names))
    return made


def _quantised(name: str, weight: Any, weight_args: Any) -> tuple[Any, Any]:
    """A matrix as int8, and the scale of each row."""
    torch, quantization = imported("torch"), imported("compressed_tensors.quantization")
    calculate_qparams = imported("compressed_tensors.quantization.utils").calculate_qparams
    least, most = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scale, zero_point = calculate_qparams(least, most, weight_args)
    if not torch.isfinite(scale).all():
        raise FailedPrecondition(f"{name} has values that are not numbers (NaN or infinite); the source is damaged")
    return quantization.quantize(weight, scale, zero_point, weight_args, dtype=torch.int8), scale
