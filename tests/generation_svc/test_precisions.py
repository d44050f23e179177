"""Over quantization_config as published checkpoints have it, shortened where it only lists layers."""

from typing import Any

import pytest

from generation_svc.precisions import precision_of, quantisation_of

INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False, "observer": "minmax"}
INT8_TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True, "observer": None}
FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
FP8_TOKENS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128, "dynamic": False}
FP4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}


def groups(*schemes: tuple[dict[str, Any], dict[str, Any] | None], form: str) -> dict[str, Any]:
    made = {
        f"group_{number}": {"targets": ["Linear"], "weights": weights, "input_activations": activations}
        for number, (weights, activations) in enumerate(schemes)
    }
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": made, "ignore": ["lm_head"]}


QUANTISED = {
    "compressed-tensors int8": (groups((INT8, INT8_TOKENS), form="int-quantized"), "int8-w8a8"),
    "compressed-tensors fp8": (groups((FP8, FP8_TOKENS), form="float-quantized"), "fp8-w8a8"),
    "compressed-tensors int4": (groups((INT4, None), form="pack-quantized"), "int4-w4a16"),
    "compressed-tensors int8 weights alone": (groups((INT8, None), form="pack-quantized"), "int8-w8a16"),
    "compressed-tensors fp4": (groups((FP4, FP4), form="nvfp4-pack-quantized"), "fp4-w4a4"),
    "compressed-tensors in two groups": (
        groups((FP8, FP8_TOKENS), (INT4, None), form="mixed-precision"),
        "fp8-w8a8+int4-w4a16",
    ),
    "compressed-tensors with the same twice": (groups((INT8, INT8_TOKENS), (INT8, INT8_TOKENS), form="x"), "int8-w8a8"),
    "fp8 per tensor": ({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, "fp8-w8a8"),
    "fp8 in blocks": (
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        "fp8-w8a8",
    ),
    "fbgemm fp8": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": []}, "fp8-w8a8"),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
        "awq-w4a16",
    ),
    "awq, the older names": ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128, "zero_point": True}, "awq-w4a16"),
    "gptq in 4 bits": (
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True, "true_sequential": True},
        "gptq-w4a16",
    ),
    "gptq in 8 bits": ({"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": False, "sym": True}, "gptq-w8a16"),
    "bitsandbytes nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"},
        "bitsandbytes-nf4",
    ),
    "bitsandbytes int8": (
        {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True, "llm_int8_threshold": 6.0},
        "bitsandbytes-int8",
    ),
    "modelopt fp8": ({"quant_method": "modelopt", "quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8-w8a8"),
    "modelopt fp4": ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "nvfp4-w4a4"),
    "mxfp4": ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, "mxfp4-w4a16"),
    "auto-round": ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}, "auto-round-w4a16"),
    "a method of tomorrow": ({"quant_method": "qtip", "codebook": 16}, "qtip"),
}


@pytest.mark.parametrize(("quantised", "name"), QUANTISED.values(), ids=QUANTISED)
def test_a_quantised_checkpoint_is_named(quantised: dict[str, Any], name: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "quantization_config": quantised}
    assert precision_of(config, dtype="torch.bfloat16") == name


@pytest.mark.parametrize("place", ["text_config", "llm_config"])
def test_quantisation_is_found_with_the_part_of_the_model_that_has_it(place: str) -> None:
    config = {"architectures": ["LlavaForConditionalGeneration"], place: {"quantization_config": {"quant_method": "fp8"}}}
    assert precision_of(config) == "fp8-w8a8"


def test_the_older_name_of_compressed_tensors_config_is_read() -> None:
    assert precision_of({"compression_config": groups((INT8, INT8_TOKENS), form="int-quantized")}) == "int8-w8a8"


@pytest.mark.parametrize(
    ("config", "dtype", "name"),
    [
        ({"torch_dtype": "bfloat16"}, "", "bf16"),
        ({"dtype": "float16"}, "", "fp16"),
        ({"text_config": {"dtype": "float32"}}, "", "fp32"),
        ({"torch_dtype": "float32"}, "torch.bfloat16", "bf16"),
        ({"torch_dtype": "bfloat16", "quantization_config": {}}, "", "bf16"),
        ({"torch_dtype": "bfloat16", "quantization_config": None}, "", "bf16"),
        ({}, "", ""),
    ],
)
def test_a_plain_checkpoint_is_named_by_its_numbers(config: dict[str, Any], dtype: str, name: str) -> None:
    assert quantisation_of(config) is None
    assert precision_of(config, dtype=dtype) == name


def test_what_the_engine_quantises_while_loading_is_named_unless_the_checkpoint_is_quantised_itself() -> None:
    assert precision_of({"torch_dtype": "bfloat16"}, loaded_as="fp8") == "fp8"
    assert precision_of({"quantization_config": {"quant_method": "awq", "bits": 4}}, loaded_as="awq_marlin") == "awq-w4a16"


@pytest.mark.parametrize(
    "quantised",
    [
        {"quant_method": "compressed-tensors"},
        {"quant_method": "compressed-tensors", "config_groups": []},
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": None}},
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": None, "input_activations": 3}}},
    ],
)
def test_a_config_that_says_too_little_is_named_by_its_method(quantised: dict[str, Any]) -> None:
    assert precision_of({"quantization_config": quantised}) == "compressed-tensors"


@pytest.mark.parametrize("quantised", [{"bits": 4}, {"quant_method": None}, "fp8", [1]])
def test_a_config_that_is_nonsense_is_no_failure(quantised: Any) -> None:
    assert precision_of({"quantization_config": quantised}) == ""
