"""HF folder -> W8A8 by llm-compressor, which sends texts through the model and chooses the numbers by what flows through it.

    smoothquant    what is large in the activations is moved into the weights, which are then rounded to the nearest
    gptq           the same, and each column is rounded so that it makes up for the errors of those before it

Runs in llm-compressor's own environment (make llm-compressor), on a GPU where there is one. On a CPU it computes in float32:
few CPUs multiply bf16 at a bearable speed (7 times slower was measured). What stays unquantised is stored as the source has it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from generation_svc.checkpoints.hugging_face import HuggingFaceFolder
from generation_svc.checkpoints.libraries import imported
from generation_svc.checkpoints.manifest import OnStep, sha256_of
from penstock.errors import FailedPrecondition, PenstockError

_SMOOTHING_STRENGTH: Final = 0.8
"""As llm-compressor's own recipe for W8A8."""
_LAYERS_BEGUN: Final = re.compile(r"Quantizing (\d+) module")
_TEXT_FIELDS: Final = ("text", "contents")
_CHARACTERS_A_TOKEN_MAX: Final = 32
"""What is cut off before the tokenizer sees it: far more than tokens have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Texts that are like what the model will read: the first `texts_max` of a file, each cut to `tokens_max` tokens.

    The file is JSON lines with a "text" (or "contents"), or plain text whose paragraphs are the texts.
    """

    file: Path
    texts_max: int = 256
    tokens_max: int = 512

    def described(self) -> str:
        """For the manifest: another description is another checkpoint."""
        return f"{self.texts_max} texts of at most {self.tokens_max} tokens from sha256:{sha256_of(self.file)}"

    def texts(self) -> list[str]:
        """Raises FailedPrecondition when the file has none or can't be read."""
        try:
            with self.file.open(encoding="utf-8") as lines:
                found = _json_texts(lines) if self.file.suffix == ".jsonl" else _paragraphs(lines)
                texts = [text for _, text in zip(range(self.texts_max), found, strict=False)]
        except (OSError, ValueError) as error:
            message = f'{self.file} has no texts to calibrate with: {error}; it takes JSON lines with a "text", or plain text'
            raise FailedPrecondition(message) from error
        if not texts:
            raise FailedPrecondition(f"{self.file} has no texts to calibrate with; it is empty")
        return [text[: self.tokens_max * _CHARACTERS_A_TOKEN_MAX] for text in texts]


def calibrate(source: HuggingFaceFolder, target: Path, method: str, calibration: Calibration, on_step: OnStep) -> None:
    """Writes the whole checkpoint into the folder `target`. Raises FailedPrecondition with llm-compressor's reason."""
    texts = calibration.texts()
    os.environ.setdefault("TQDM_DISABLE", "1")  # Its bars would write across ours.
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")
    llmcompressor, transformers, torch = imported("llmcompressor"), imported("transformers"), imported("torch")
    try:
        on_step("loading the model", 0, 1)
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model = transformers.AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.path)
        on_step(f"calibrating with {len(texts)} texts ({method})", 0, len(source.linear_weights()))
        _follow(on_step, method, len(source.linear_weights()))
        llmcompressor.oneshot(
            model=model,
            processor=tokenizer,
            dataset=_dataset(tokenizer, texts, calibration.tokens_max),
            recipe=_recipe(method, source.kept_layers()),
            max_seq_length=calibration.tokens_max,
            num_calibration_samples=len(texts),
            shuffle_calibration_samples=False,
        )
        on_step("writing the checkpoint", 0, 1)
        model.save_pretrained(target, save_compressed=True)
        _store_as_the_source(source, target)
    except PenstockError:
        raise
    except Exception as error:  # It raises what it likes.
        message = f"llm-compressor cannot quantise {source.path}: {error}; --method round-to-nearest needs no calibration"
        raise FailedPrecondition(message) from error
    for file in source.other_files():
        shutil.copy(file, target)


def _follow(on_step: OnStep, method: str, layers: int) -> None:
    """Tells how many layers GPTQ has done. llm-compressor says it in its log alone, and of other methods nothing."""
    done = 0

    def hear(message: object) -> None:
        nonlocal done
        if found := _LAYERS_BEGUN.search(str(message)):
            done = min(done + int(found[1]), layers)
            on_step(f"quantising ({method})", done, layers)

    imported("loguru").logger.add(hear, level="INFO")


def _store_as_the_source(source: HuggingFaceFolder, target: Path) -> None:
    """Gives the tensors that are not quantised the source's types; and the config that of the model."""
    safetensors, torch = imported("safetensors.torch"), imported("torch")
    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    linear = source.linear_weights()
    kept = {
        name: types[tensor.dtype] for name, tensor in source.tensors().items() if name not in linear and tensor.dtype in types
    }
    for file in target.glob("*.safetensors"):
        tensors = safetensors.load_file(file)
        stored = {name: tensor.to(kept.get(name, tensor.dtype)) for name, tensor in tensors.items()}
        safetensors.save_file(stored, file, metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    told = {name: source.config[name] for name in ("dtype", "torch_dtype") if name in source.config}
    without = {name: value for name, value in config.items() if name not in {"dtype", "torch_dtype"}}
    (target / "config.json").write_text(json.dumps(without | told, indent=1))


def _recipe(method: str, kept: list[str]) -> list[Any]:
    smoothquant = imported("llmcompressor.modifiers.transform.smoothquant")
    smooth = smoothquant.SmoothQuantModifier(smoothing_strength=_SMOOTHING_STRENGTH)
    if method == "gptq":
        rounding = imported("llmcompressor.modifiers.gptq").GPTQModifier
    else:
        rounding = imported("llmcompressor.modifiers.quantization").QuantizationModifier
    return [smooth, rounding(targets="Linear", scheme="W8A8", ignore=kept)]


def _dataset(tokenizer: Any, texts: list[str], tokens_max: int) -> Any:
    rows = [dict(tokenizer(text, truncation=True, max_length=tokens_max)) for text in texts]
    return imported("datasets").Dataset.from_list(rows)


def _json_texts(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.strip():
            entry = json.loads(line)
            named = entry if isinstance(entry, dict) else {}
            text = next((named[name] for name in _TEXT_FIELDS if named.get(name)), None)
            if not isinstance(text, str):
                raise ValueError(f'a line has no "text": {line[:80]}')
            yield text


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    gathered: list[str] = []
    for line in lines:
        if line.strip():
            gathered.append(line)
        elif gathered:
            yield "".join(gathered)
            gathered.clear()
    if gathered:
        yield "".join(gathered)
