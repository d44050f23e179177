"""GGUF -> bf16: a Hugging Face checkpoint, its weights unpacked by transformers."""

import os
from pathlib import Path

from generation_svc.checkpoints.libraries import imported
from generation_svc.checkpoints.manifest import OnStep


def unpack_gguf(source: Path, target: Path, on_step: OnStep) -> None:
    """Writes weights, config, tokenizer and chat template into the folder `target`."""
    on_step("reading the GGUF file", 0, 3)
    os.environ.setdefault("TQDM_DISABLE", "1")  # Its bar would write across ours.
    transformers, torch = imported("transformers"), imported("torch")
    for needed in ("gguf", "accelerate"):
        imported(needed)
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    on_step("unpacking weights", 1, 3)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=transformers.GgufConfig(dequantize=True)
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # They are unpacked now.
    on_step("writing the checkpoint", 2, 3)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    on_step("writing the checkpoint", 3, 3)
