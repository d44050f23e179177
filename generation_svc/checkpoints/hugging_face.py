"""A Hugging Face folder that is to be quantised: what is in it, what speaks against it, and which of its tensors become int8.

Only the headers of its safetensors files are read here, so that all of this is known before any work is done.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from generation_svc.checkpoints.manifest import MANIFEST, OnStep, sha256_of
from generation_svc.precisions import precision_of, quantisation_of
from penstock.errors import FailedPrecondition

INDEX: Final = "model.safetensors.index.json"
_HEADER_BYTES_MAX: Final = 100_000_000
"""The format's own bound."""
_FLOATS: Final = frozenset({"BF16", "F16", "F32"})
_TRANSPOSED: Final = frozenset({"gpt2", "openai-gpt"})
"""Families whose matrices are stored inputs first, so that a row is no output channel."""
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
_WEIGHT_FILES: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"})
# Tables, outputs over the vocabulary, routers of experts and what sees or hears stay as they are: they are small or sensitive,
# and vLLM does not take them in int8.
_KEPT: Final = re.compile(
    r"(embed|lm_head|\bwte\b|\bwpe\b|\bgate\.weight$|\brouter\b|shared_expert_gate|vision|visual|audio|projector|score\.weight$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """As a safetensors header describes it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceFolder:
    """A checkpoint of plain numbers: its config, and by file what its tensors are."""

    path: Path
    config: Mapping[str, Any]
    shards: Mapping[str, Mapping[str, Tensor]]

    def tensors(self) -> dict[str, Tensor]:
        """Of all files together."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}

    def linear_weights(self) -> frozenset[str]:
        """The tensors that become int8: matrices, but for those that _KEPT names or that have a row for each token."""
        vocabulary = _vocabulary(self.config)
        return frozenset(
            name
            for name, tensor in self.tensors().items()
            if _is_matrix(name, tensor) and tensor.shape[0] != vocabulary and not _KEPT.search(name)
        )

    def kept_layers(self) -> list[str]:
        """The layers with a matrix that stays as it is, by the names that the checkpoint's config has for vLLM to ignore."""
        linear = self.linear_weights()
        kept = {name for name, tensor in self.tensors().items() if _is_matrix(name, tensor) and name not in linear}
        return sorted({name.removesuffix(".weight") for name in kept} | {"lm_head"})

    def other_files(self) -> Iterator[Path]:
        """What is copied as it is: tokenizer, chat template, generation config, licence. No weights, in whatever format."""
        for file in sorted(self.path.iterdir()):
            weights = file.suffix in _WEIGHT_FILES or file.name.endswith(".index.json")
            if file.is_file() and not weights and not file.name.startswith(".") and file.name not in {MANIFEST, "config.json"}:
                yield file

    def sha256(self, on_step: OnStep) -> str:
        """Of all that a checkpoint is made from, with the files' names."""
        files = [self.path / "config.json", *(self.path / name for name in self.shards), *self.other_files()]
        digest = hashlib.sha256()
        for number, file in enumerate(files):
            on_step("reading the source", number, len(files))
            digest.update(f"{file.name}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()


def opened(path: Path) -> HuggingFaceFolder:
    """Reads config and headers. Raises FailedPrecondition that says what is missing, or why it can't be quantised."""
    if path.is_file():
        message = f"{path} is a file, and a Hugging Face folder is wanted; penstock models prepare makes one of a GGUF file"
        raise FailedPrecondition(message)
    config = _config(path)
    folder = HuggingFaceFolder(path=path, config=config, shards={name: _header(path / name) for name in _shard_names(path)})
    _check_can_be_quantised(folder)
    return folder


def _config(path: Path) -> Mapping[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        message = f"{path} is no Hugging Face checkpoint: it has no config.json; name the folder that has it beside the weights"
        raise FailedPrecondition(message)
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        message = f"{file} is not JSON: {error}"
        raise FailedPrecondition(message) from error
    if not isinstance(config, dict) or "model_type" not in config:
        message = f"{file} is no model's config: it does not say its model_type"
        raise FailedPrecondition(message)
    return config


def _shard_names(path: Path) -> list[str]:
    """By the index where there is one: repositories often have the same weights a second time under other names."""
    index = path / INDEX
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else []
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"{index} is not an index of safetensors files"
        raise FailedPrecondition(message) from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        message = f"{index} names files outside of its folder"
        raise FailedPrecondition(message)
    if missing := [name for name in names if not (path / name).is_file()]:
        message = f"{path} is incomplete: its index names {missing[0]}, which is not there ({len(missing)} missing)"
        raise FailedPrecondition(message)
    single = path / "model.safetensors"
    if names or single.is_file():
        return names or [single.name]
    found = sorted(file.name for file in path.glob("*.safetensors"))
    if not found:
        others = sorted({file.suffix for file in path.iterdir() if file.suffix in _WEIGHT_FILES})
        has = f"only {', '.join(others)}" if others else "no weights at all"
        message = f"{path} has no safetensors files, {has}; save the model again with transformers' save_pretrained"
        raise FailedPrecondition(message)
    return found


def _header(file: Path) -> Mapping[str, Tensor]:
    """8 bytes of length, then JSON; the tensors' bytes follow and end with the file."""
    with file.open("rb") as opened_file:
        length = int.from_bytes(opened_file.read(8), "little")
        header = opened_file.read(length) if length <= _HEADER_BYTES_MAX else b""
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        ends = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        tensors = {name: Tensor(dtype=entry["dtype"], shape=tuple(entry["shape"])) for name, entry in entries.items()}
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        message = f"{file} is not a safetensors file; a pointer of Git LFS, perhaps: fetch the file itself"
        raise FailedPrecondition(message) from error
    if file.stat().st_size != 8 + length + ends:
        message = f"{file} is cut off: it has {file.stat().st_size} bytes and its header says {8 + length + ends}"
        raise FailedPrecondition(message)
    return tensors


def _check_can_be_quantised(folder: HuggingFaceFolder) -> None:
    if quantisation_of(folder.config) is not None:
        name = precision_of(folder.config) or "in an unknown way"
        raise FailedPrecondition(f"{folder.path} is quantised already ({name}); start from the model in bf16, fp16 or fp32")
    if not any((folder.path / name).is_file() for name in _TOKENIZERS):
        raise FailedPrecondition(f"{folder.path} has no tokenizer ({', '.join(_TOKENIZERS)}), so that vLLM could not serve it")
    if folder.config["model_type"] in _TRANSPOSED:
        message = (
            f"{folder.path} is a {folder.config['model_type']} model, whose matrices are stored transposed; W8A8 is not made"
        )
        raise FailedPrecondition(message)
    tensors, linear = folder.tensors(), folder.linear_weights()
    if stacked := next((name for name, tensor in tensors.items() if "expert" in name and len(tensor.shape) == 3), ""):
        message = (
            f"{folder.path} has its experts in one tensor ({stacked}), which vLLM does not take in W8A8 from such a folder"
        )
        raise FailedPrecondition(message)
    if other := next((name for name in linear if tensors[name].dtype not in _FLOATS), ""):
        message = (
            f"{folder.path} has {other} in {tensors[other].dtype}, so it is quantised already; start from bf16, fp16 or fp32"
        )
        raise FailedPrecondition(message)
    if not linear:
        raise FailedPrecondition(f"{folder.path} has no linear layers that could be quantised")


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return name.endswith(".weight") and len(tensor.shape) == 2


def _vocabulary(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    found = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, Mapping) else None)
    return found if isinstance(found, int) else -1
