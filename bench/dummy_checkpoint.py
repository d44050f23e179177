"""A model of eight thousand million parameters without its weights: what a GPU computes is the same whatever they are.

vLLM fills them with random values (load_format=dummy). The shape is Llama 3.1 8B's, as its published config.json gives it; the
tokenizer is the small model's, whose vocabulary is smaller, which costs nothing that is measured.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

LLAMA_8B: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def make(folder: Path, *, tokenizer_of: Path) -> Path:
    """The folder `folder`/llama-8b-dummy: a config.json, and the tokenizer of another checkpoint."""
    made = folder / "llama-8b-dummy"
    made.mkdir(parents=True, exist_ok=True)
    (made / "config.json").write_text(json.dumps(LLAMA_8B, indent=1))
    for name in (*_TOKENIZER_FILES, "chat_template.jinja"):
        if (tokenizer_of / name).exists():
            shutil.copy(tokenizer_of / name, made)
    return made
