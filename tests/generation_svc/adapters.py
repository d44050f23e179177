"""A LoRA adapter as PEFT writes it, with random weights that visibly change what a model says."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK = 8


def write_adapter(folder: Path, model: Path) -> Path:
    """For the attention of a Llama-like model, whose sizes its own config says."""
    config = json.loads((model / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    outputs = {"q_proj": head * config["num_attention_heads"], "v_proj": head * config["num_key_value_heads"]}
    random, tensors = np.random.default_rng(5), {}
    for layer in range(layers):
        for name, size in outputs.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.1, (RANK, hidden)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.1, (size, RANK)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    said = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none",
        "target_modules": list(outputs), "base_model_name_or_path": str(model), "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder
