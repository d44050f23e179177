"""From settings to vLLM's arguments: every one that matters said explicitly, combinations that cannot work refused by name.

Pure: what the installed vLLM knows comes in as an Installation.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from generation_svc.settings import GenerationSettings
from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model

VARIABLE_PREFIX: Final = "PENSTOCK_GENERATION_"
_GIB: Final = 2**30
_LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM makes room."""

SETTING_OF: Final[Mapping[str, str]] = {
    "model": "model",
    "served_model_name": "served_name",
    "max_model_len": "context_window",
    "max_num_seqs": "running_max",
    "dtype": "vllm_dtype",
    "quantization": "vllm_quantization",
    "load_format": "vllm_load_format",
    "revision": "vllm_revision",
    "tokenizer": "vllm_tokenizer",
    "trust_remote_code": "vllm_trust_remote_code",
    "seed": "vllm_seed",
    "enforce_eager": "vllm_enforce_eager",
    "max_num_batched_tokens": "vllm_batched_tokens_max",
    "enable_chunked_prefill": "vllm_chunked_prefill",
    "enable_prefix_caching": "vllm_prefix_caching",
    "scheduling_policy": "vllm_scheduling",
    "gpu_memory_utilization": "vllm_gpu_memory_fraction",
    "kv_cache_memory_bytes": "vllm_cache_gb",
    "kv_cache_dtype": "vllm_cache_dtype",
    "tensor_parallel_size": "vllm_tensor_parallel",
    "pipeline_parallel_size": "vllm_pipeline_parallel",
    "data_parallel_size": "vllm_data_parallel",
    "enable_lora": "vllm_adapters",
    "max_cpu_loras": "vllm_adapters",
    "max_loras": "vllm_adapters_running_max",
    "max_lora_rank": "vllm_adapter_rank_max",
    "speculative_config": "vllm_speculative",
    "max_logprobs": "vllm_logprobs_max",
    "structured_outputs_config": "vllm_structured_backend",
    "runner": "engine",
}
"""vLLM's arguments that settings decide."""

DECIDED: Final[Mapping[str, object]] = {
    # Our logs have the requests, and our metrics the numbers: see vllm_api.recorder.
    "enable_log_requests": False,
    "disable_log_stats": True,
    "skip_tokenizer_init": False,
}
"""vLLM's arguments that this service decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the installed vLLM takes: its arguments, each with a function that gives a value its type or raises ValueError."""

    arguments: Mapping[str, Callable[[Any], Any]]
    speculative_keys: frozenset[str]
    device: str
    """Such as "cuda" or "cpu"."""


def generating(settings: GenerationSettings, installed: Installation) -> dict[str, Any]:
    """Arguments for a model that generates. Raises FailedPrecondition with every fault at once."""
    faults = [*_parallel_faults(settings, installed), *_step_faults(settings), *_speculative_faults(settings, installed)]
    asked = {
        **_common(settings),
        "runner": "generate",
        "enable_chunked_prefill": settings.vllm_chunked_prefill,
        "enable_prefix_caching": settings.vllm_prefix_caching,
        "max_logprobs": settings.vllm_logprobs_max,
        "speculative_config": settings.vllm_speculative or None,
        "structured_outputs_config": {
            "backend": settings.vllm_structured_backend,
            "disable_any_whitespace": not settings.vllm_structured_whitespace,
        },
        **_adapters(settings, faults),
    }
    return _checked(asked, settings, installed, faults)


def pooling(settings: GenerationSettings, installed: Installation) -> dict[str, Any]:
    """Arguments for a model that embeds or reranks. vLLM knows which of them can have a cache or chunks."""
    faults = [*_parallel_faults(settings, installed)]
    useless = [_variable(name) for name in ("vllm_adapters", "vllm_speculative") if getattr(settings, name)]
    faults += [f"{name} is set, which the engine vllm-pooling has no use for; leave it out" for name in useless]
    return _checked({**_common(settings), "runner": "pooling"}, settings, installed, faults)


def _common(settings: GenerationSettings) -> dict[str, Any]:
    return {
        **DECIDED,
        "model": locate_model(settings.model),
        "served_model_name": settings.served_name,
        "max_model_len": settings.context_window or None,
        "max_num_seqs": settings.running_max,
        "dtype": settings.vllm_dtype,
        "quantization": None if settings.vllm_quantization == "auto" else settings.vllm_quantization,
        "load_format": settings.vllm_load_format,
        "revision": settings.vllm_revision or None,
        "tokenizer": locate_model(settings.vllm_tokenizer) or None,
        "trust_remote_code": settings.vllm_trust_remote_code,
        "seed": settings.vllm_seed,
        "enforce_eager": settings.vllm_enforce_eager,
        "max_num_batched_tokens": settings.vllm_batched_tokens_max or None,
        "scheduling_policy": settings.vllm_scheduling,
        "gpu_memory_utilization": settings.vllm_gpu_memory_fraction,
        "kv_cache_memory_bytes": int(settings.vllm_cache_gb * _GIB) or None,
        "kv_cache_dtype": settings.vllm_cache_dtype,
        "tensor_parallel_size": settings.vllm_tensor_parallel,
        "pipeline_parallel_size": settings.vllm_pipeline_parallel,
        "data_parallel_size": settings.vllm_data_parallel,
    }


def _checked(asked: dict[str, Any], settings: GenerationSettings, installed: Installation, faults: list[str]) -> dict[str, Any]:
    """The arguments with the extra ones, by vLLM's own types. None leaves an argument to vLLM."""
    typed: dict[str, Any] = {}
    for name, value in asked.items():
        if value is not None:
            faults += _typed(name, value, _variable(SETTING_OF.get(name, name)), installed, typed)
    for name, value in settings.vllm_extra.items():
        where = f"{_variable('vllm_extra')}, {name!r}"
        if fault := _extra_fault(name, installed):
            faults.append(f"{where}: {fault}")
        else:
            faults += _typed(name, value, where, installed, typed)
    if faults:
        raise FailedPrecondition("vLLM cannot be started like this: " + "; ".join(faults))
    return typed


def _typed(name: str, value: Any, where: str, installed: Installation, typed: dict[str, Any]) -> Iterator[str]:
    try:
        typed[name] = installed.arguments[name](value)
    except ValueError as error:
        yield f"{where} is {value!r}: {error}"


def _extra_fault(name: str, installed: Installation) -> str:
    if name in SETTING_OF:
        return f"is decided by {_variable(SETTING_OF[name])}; set that"
    if name in DECIDED:
        return f"is decided by this service ({DECIDED[name]}); leave it out"
    if name not in installed.arguments:
        return f"is no argument of this vLLM's AsyncEngineArgs{_suggestion(name, installed.arguments)}"
    return ""


def _parallel_faults(settings: GenerationSettings, installed: Installation) -> Iterator[str]:
    if installed.device == "cpu" and settings.vllm_data_parallel > 1:
        yield f"{_variable('vllm_data_parallel')} is {settings.vllm_data_parallel} on a CPU; start more replicas instead"


def _step_faults(settings: GenerationSettings) -> Iterator[str]:
    batched, name = settings.vllm_batched_tokens_max, _variable("vllm_batched_tokens_max")
    if batched and batched < settings.running_max:
        yield (
            f"{name} is {batched}, below {_variable('running_max')} ({settings.running_max}): "
            "each running request needs a token of a step"
        )
    if not settings.vllm_chunked_prefill and 0 < batched < settings.context_window:
        yield (
            f"{name} is {batched}, below {_variable('context_window')} ({settings.context_window}): without "
            f"{_variable('vllm_chunked_prefill')} a step takes whole prompts"
        )


def _speculative_faults(settings: GenerationSettings, installed: Installation) -> Iterator[str]:
    asked, name = settings.vllm_speculative, _variable("vllm_speculative")
    for key in asked:
        if key not in installed.speculative_keys:
            yield f"{name}, {key!r}: is no field of this vLLM's SpeculativeConfig{_suggestion(key, installed.speculative_keys)}"
    if asked and not (asked.get("method") or asked.get("model")):
        yield f'{name} has neither "method" (such as "ngram") nor "model" (a draft model)'
    tokens = asked.get("num_speculative_tokens", 1)
    if not isinstance(tokens, int) or not 1 <= tokens <= 64:
        yield f'{name}, "num_speculative_tokens" is {tokens!r}, must be 1 to 64'


def _adapters(settings: GenerationSettings, faults: list[str]) -> dict[str, Any]:
    if not settings.vllm_adapters:
        if settings.vllm_adapter_rank_max:
            faults.append(
                f"{_variable('vllm_adapter_rank_max')} is set without {_variable('vllm_adapters')}; name the adapters"
            )
        return {"enable_lora": False}
    ranks = [_rank(name, path, faults) for name, path in settings.vllm_adapters.items()]
    most = settings.vllm_adapter_rank_max or max(ranks)
    if max(ranks) > most:
        faults.append(f"{_variable('vllm_adapter_rank_max')} is {most}, but an adapter has a rank of {max(ranks)}")
    return {
        "enable_lora": True,
        "max_loras": min(settings.vllm_adapters_running_max, len(ranks)),
        "max_lora_rank": next((rank for rank in _LORA_RANKS if rank >= most), most),
        "max_cpu_loras": len(ranks),
    }


def _rank(name: str, path: str, faults: list[str]) -> int:
    """An adapter's rank, by the file that PEFT writes beside the weights."""
    config = Path(locate_model(path)) / "adapter_config.json"
    try:
        return int(json.loads(config.read_text())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.append(
            f"{_variable('vllm_adapters')}, {name!r}: {config} must be the adapter_config.json of a PEFT LoRA adapter, "
            f"with its rank r ({type(error).__name__}: {error})"
        )
        return 1


def _variable(setting: str) -> str:
    return f"{VARIABLE_PREFIX}{setting.upper()}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
