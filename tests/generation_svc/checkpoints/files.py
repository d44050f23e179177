"""Hugging Face folders of a few kilobytes, written and read byte by byte, so that tests need neither torch nor safetensors."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}  # fmt: skip
Q_PROJ, DOWN_PROJ = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
LAYER = {Q_PROJ: ("BF16", (16, 16)), DOWN_PROJ: ("BF16", (16, 32)), "model.layers.0.input_layernorm.weight": ("BF16", (16,))}
TABLES = {EMBEDDING: ("BF16", (64, 16)), "model.norm.weight": ("BF16", (16,))}
Described = Mapping[str, tuple[str, tuple[int, ...]]]

_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1, "F8_E4M3": 1}
_READ = {"I8": np.int8, "F32": np.float32}


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Some that bf16 holds exactly."""
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return (drawn.view(np.uint32) & 0xFFFF0000).view(np.float32)


def safetensors(tensors: Described, values: Mapping[str, np.ndarray]) -> bytes:
    """A file of these tensors: zeros, but for those (in bf16) that have values."""
    header, data = {}, b""
    for name, (dtype, shape) in tensors.items():
        if name in values:
            written = (values[name].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            written = bytes(math.prod(shape) * _BYTES[dtype])
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(written)]}
        data += written
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file; bf16 as float32."""
    written = file.read_bytes()
    (length,) = struct.unpack("<Q", written[:8])
    found = {}
    for name, entry in json.loads(written[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = written[begin:end]
            if entry["dtype"] == "BF16":
                flat = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                flat = np.frombuffer(raw, _READ[entry["dtype"]])
            found[name] = flat.reshape(entry["shape"])
    return found


def folder(
    path: Path,
    *shards: Described,
    config: Mapping[str, Any] = CONFIG,
    tokenizer: bool = True,
    values: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A folder as save_pretrained leaves it: one file of weights, or several with an index."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (path / "tokenizer.json").write_text('{"version": "1.0"}')
    if len(shards) == 1:
        (path / "model.safetensors").write_bytes(safetensors(shards[0], values or {}))
    elif shards:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        for name, shard in zip(names, shards, strict=True):
            (path / name).write_bytes(safetensors(shard, values or {}))
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path
