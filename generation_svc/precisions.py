"""Names the precision of a checkpoint from its config.json, as people write it: "bf16", "int8-w8a8", "awq-w4a16".

    FORMAT-wXaY    weights in X bits, activations in Y. Activations that are not quantised are 16: w4a16.
    FORMAT         what the numbers are (int8, fp8) or, where the method says more than they do, the method (awq, gptq).

vLLM finds by itself how a checkpoint is quantised. This only tells people, so it never fails: what it does not know is named by
the method alone, and "" is not known at all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Config = Mapping[str, Any]

_PLAIN: Final = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
_UNQUANTISED_BITS: Final = 16


def precision_of(config: Config, *, dtype: str = "", loaded_as: str = "") -> str:
    """The name of a checkpoint's precision. Where its config says nothing of quantisation, that of its numbers.

    `dtype` is the type that the engine computes in, and wins over the config's own. `loaded_as` is a quantisation that the
    engine applies while it loads a plain checkpoint (vLLM's --quantization fp8).
    """
    quantised = quantisation_of(config)
    if quantised is None:
        return loaded_as or _plain(dtype or _declared_dtype(config))
    method = str(quantised.get("quant_method") or "").lower()
    return _METHODS.get(method, _by_method)(quantised)


def quantisation_of(config: Config) -> Config | None:
    """What a config says of quantisation, also where it stands with a part of the model (text_config). None: nothing."""
    for place in (config, config.get("text_config"), config.get("llm_config")):
        if isinstance(place, Mapping):
            for name in ("quantization_config", "compression_config"):
                if isinstance(found := place.get(name), Mapping) and found:
                    return found
    return None


def _plain(dtype: str) -> str:
    return _PLAIN.get(dtype.removeprefix("torch."), "")


def _declared_dtype(config: Config) -> str:
    text = config.get("text_config")
    places = (config, text) if isinstance(text, Mapping) else (config,)
    return next((str(place[name]) for place in places for name in ("dtype", "torch_dtype") if place.get(name)), "")


def _compressed_tensors(quantised: Config) -> str:
    """By its groups of layers; several that differ are all named."""
    groups = quantised.get("config_groups")
    found = [_group(group) for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else []
    return "+".join(dict.fromkeys(name for name in found if name)) or "compressed-tensors"


def _group(group: Config) -> str:
    weights, activations = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, Mapping) or not weights.get("num_bits"):
        return ""
    activation_bits = activations.get("num_bits", _UNQUANTISED_BITS) if isinstance(activations, Mapping) else _UNQUANTISED_BITS
    kind = "fp" if weights.get("type") == "float" else "int"
    return f"{kind}{weights['num_bits']}-w{weights['num_bits']}a{activation_bits}"


def _fp8(_: Config) -> str:
    return "fp8-w8a8"


def _modelopt(quantised: Config) -> str:
    inner = quantised.get("quantization")
    algorithm = str(
        quantised.get("quant_algo") or (inner.get("quant_algo") if isinstance(inner, Mapping) else "") or ""
    ).lower()
    return {"fp8": "fp8-w8a8", "nvfp4": "nvfp4-w4a4"}.get(algorithm, algorithm or "modelopt")


def _bitsandbytes(quantised: Config) -> str:
    if quantised.get("load_in_4bit"):
        return f"bitsandbytes-{quantised.get('bnb_4bit_quant_type') or 'fp4'}"
    return "bitsandbytes-int8" if quantised.get("load_in_8bit") else "bitsandbytes"


def _by_method(quantised: Config) -> str:
    """Of methods that store the weights in some bits and compute in 16: AWQ, GPTQ, AutoRound and what comes after."""
    method = str(quantised.get("quant_method") or "").lower().removesuffix("_marlin")
    bits = next((quantised[name] for name in ("bits", "w_bit") if quantised.get(name)), None)
    return f"{method}-w{bits}a{_UNQUANTISED_BITS}" if method and bits else method


_METHODS: Final[Mapping[str, Callable[[Config], str]]] = {
    "compressed-tensors": _compressed_tensors,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": lambda _: "mxfp4-w4a16",
}
