"""What a platform engineer tunes in vLLM: PENSTOCK_GENERATION_VLLM_* variables. vllm_arguments says what becomes of each."""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode

ADAPTERS_MAX: Final = 64
EXTRAS_MAX: Final = 64

AdapterName = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _json_object(value: Any) -> Any:
    """A variable's text is a JSON object; read here, so that a fault is reported with the variable's name."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else {}
    except json.JSONDecodeError as error:
        message = f'must be a JSON object, such as {{"name": "value"}}; it is not JSON: {error}'
        raise ValueError(message) from error


JsonObject = Annotated[dict[str, Any], NoDecode, BeforeValidator(_json_object)]
Adapters = Annotated[dict[AdapterName, str], NoDecode, BeforeValidator(_json_object)]


class VllmSettings(BaseModel):
    """The settings of vllm and vllm-pooling. The defaults suit RAG: long prompts that share beginnings, short answers."""

    vllm_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Type to compute in (dtype). auto: the checkpoint's."
    )
    vllm_quantization: str = Field(
        default="auto",
        pattern="^[a-z0-9_-]{1,64}$",
        description="How the weights are quantised (quantization). auto: as the checkpoint says, which is right for "
        "compressed-tensors, AWQ, GPTQ and FP8 alike. A name, such as fp8, quantises an ordinary checkpoint on loading.",
    )
    vllm_load_format: str = Field(
        default="auto",
        pattern="^[a-z_]{1,64}$",
        description="How weights are read (load_format). dummy: not at all, random ones instead, to measure without them.",
    )
    vllm_revision: str = Field(
        default="",
        max_length=128,
        description="Branch, tag or commit of the model on its hub (revision). Empty: its main branch.",
    )
    vllm_tokenizer: str = Field(
        default="", max_length=1024, description="Folder or hub name of the tokenizer (tokenizer). Empty: the model's own."
    )
    vllm_trust_remote_code: bool = Field(
        default=False, description="Run Python code that comes with the model (trust_remote_code)."
    )
    vllm_seed: int = Field(
        default=0, ge=0, le=2**63 - 1, description="Seed of what is sampled without a seed of its own (seed)."
    )
    vllm_enforce_eager: bool = Field(
        default=False, description="Start sooner, without compiling; run slower on GPUs (enforce_eager)."
    )

    vllm_warm_up: bool = Field(
        default=True,
        description="Answer a request with log probabilities before being ready: for the first one vLLM compiles for seconds, "
        "in which every answer would stand still.",
    )

    vllm_batched_tokens_max: int = Field(
        default=0,
        ge=0,
        le=2**20,
        description="Tokens of one step (max_num_batched_tokens): more answers long prompts sooner, fewer interrupt running "
        "answers less. 0: as vLLM's own server chooses for the device, 8192 on an H100, 2048 on small GPUs and CPUs.",
    )
    vllm_chunked_prefill: bool = Field(
        default=True,
        description="Let long prompts share their steps with running answers (enable_chunked_prefill), not stop them.",
    )
    vllm_prefix_caching: bool = Field(
        default=True, description="Keep prompts' beginnings for the next request with the same (enable_prefix_caching)."
    )
    vllm_scheduling: Literal["priority", "fcfs"] = Field(
        default="priority",
        description="Which request is computed first and which is put back last for lack of memory (scheduling_policy). "
        "priority: by the requests' own, then as they came. fcfs: as they came.",
    )

    vllm_gpu_memory_fraction: float = Field(
        default=0.9, gt=0, le=1, description="Share of the GPU's memory that vLLM takes (gpu_memory_utilization)."
    )
    vllm_cache_gb: float = Field(
        default=0.0,
        ge=0,
        le=4096,
        description="Memory for keys and values, in GiB (kv_cache_memory_bytes). 0: by the fraction above, on a CPU of the "
        "machine's memory.",
    )
    vllm_cache_dtype: str = Field(
        default="auto",
        pattern="^[a-z0-9_]{1,64}$",
        description="Type of the keys and values (kv_cache_dtype). fp8 holds twice as many on GPUs that have it.",
    )

    vllm_tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that share each layer (tensor_parallel_size).")
    vllm_pipeline_parallel: int = Field(
        default=1, ge=1, le=64, description="Groups of GPUs that have some of the layers each (pipeline_parallel_size)."
    )
    vllm_data_parallel: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Copies of the model in one service (data_parallel_size), with running_max requests each. Several replicas "
        "of the service do the same and fail one by one.",
    )

    vllm_adapters: Adapters = Field(
        default={},
        max_length=ADAPTERS_MAX,
        description='LoRA adapters by the names that requests ask for, as JSON: {"contracts": "/models/contracts-lora"}.',
    )
    vllm_adapters_running_max: int = Field(
        default=4,
        ge=1,
        le=ADAPTERS_MAX,
        description="Adapters that one step may mix (max_loras). Each takes memory of the GPU.",
    )
    vllm_adapter_rank_max: int = Field(
        default=0, ge=0, le=512, description="Largest rank of an adapter (max_lora_rank). 0: that of the adapters' own files."
    )
    vllm_speculative: JsonObject = Field(
        default={},
        max_length=EXTRAS_MAX,
        description='Speculative decoding as JSON (speculative_config): {"method": "ngram", "num_speculative_tokens": 4, '
        '"prompt_lookup_max": 4} guesses from the prompt, which suits answers that quote it.',
    )
    vllm_logprobs_max: int = Field(
        default=20, ge=0, le=1000, description="Most likeliest tokens that a request may ask for (max_logprobs)."
    )
    vllm_structured_backend: Literal["guidance", "xgrammar"] = Field(
        default="guidance",
        description="What holds answers to a form (structured_outputs_config). guidance takes bounded time for any form; "
        "xgrammar is faster for forms from people you trust, and minutes for some of a few hundred bytes.",
    )
    vllm_structured_whitespace: bool = Field(
        default=True, description="Whether JSON that is held to a form may have whitespace between its tokens."
    )

    vllm_extra: JsonObject = Field(
        default={},
        max_length=EXTRAS_MAX,
        description='Any other argument of vLLM\'s AsyncEngineArgs as JSON: {"block_size": 32}. Names and types are checked.',
    )
