"""What is read of a folder before any work is done: which layers become int8, and what is refused with which words."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from generation_svc.checkpoints.hugging_face import opened
from penstock.errors import FailedPrecondition
from tests.generation_svc.checkpoints.files import CONFIG, DOWN_PROJ, EMBEDDING, LAYER, Q_PROJ, TABLES, folder, safetensors


def quietly(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


@pytest.mark.parametrize("shards", [(LAYER | TABLES,), (LAYER, TABLES)], ids=["one file", "two files"])
def test_linear_layers_become_int8_and_tables_and_norms_stay(tmp_path: Path, shards: tuple[dict, ...]) -> None:
    found = opened(folder(tmp_path, *shards))
    assert found.linear_weights() == {Q_PROJ, DOWN_PROJ}
    assert found.kept_layers() == ["lm_head", "model.embed_tokens"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lm_head.weight", (64, 16)),
        ("output.weight", (64, 16)),  # By its rows: one for each token.
        ("transformer.wpe.weight", (128, 16)),
        ("model.layers.0.mlp.gate.weight", (8, 16)),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 16)),
        ("model.layers.0.block_sparse_moe.gate.weight", (8, 16)),
        ("vision_tower.layers.0.fc1.weight", (32, 16)),
        ("multi_modal_projector.linear_1.weight", (32, 16)),
        ("score.weight", (2, 16)),
    ],
)
def test_outputs_routers_positions_and_what_sees_stay_and_are_named_for_vllm(
    tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    found = opened(folder(tmp_path, {name: ("BF16", shape), **LAYER}))
    assert found.linear_weights() == {Q_PROJ, DOWN_PROJ}
    assert name.removesuffix(".weight") in found.kept_layers()


@pytest.mark.parametrize("name", ["mlp.gate_proj", "mlp.experts.3.down_proj", "self_attn.kv_a_proj_with_mqa"])
def test_gates_of_the_feed_forward_and_single_experts_become_int8(tmp_path: Path, name: str) -> None:
    whole = f"model.layers.0.{name}.weight"
    assert whole in opened(folder(tmp_path, {whole: ("BF16", (32, 16))})).linear_weights()


def test_the_vocabulary_of_a_model_with_parts_is_that_of_its_text(tmp_path: Path) -> None:
    config = {"model_type": "llava", "text_config": {"vocab_size": 64}}
    found = opened(folder(tmp_path, {"head.weight": ("BF16", (64, 16)), **LAYER}, config=config))
    assert "head.weight" not in found.linear_weights()


def test_weights_that_lie_there_a_second_time_are_neither_read_nor_copied(tmp_path: Path) -> None:
    path = folder(tmp_path, LAYER, TABLES)
    (path / "consolidated.safetensors").write_bytes(safetensors({"layers.0.w1.weight": ("BF16", (8, 8))}, {}))
    for name in ("pytorch_model.bin", ".gitattributes", "pytorch_model.bin.index.json"):
        (path / name).write_bytes(b"x")
    (path / "LICENSE").write_text("Apache-2.0")
    found = opened(path)
    assert sorted(found.tensors()) == sorted(LAYER | TABLES)
    assert [file.name for file in found.other_files()] == ["LICENSE", "tokenizer.json"]


def test_the_source_is_another_when_weights_config_or_tokenizer_change(tmp_path: Path) -> None:
    def sha256() -> str:
        return opened(tmp_path).sha256(quietly)

    folder(tmp_path, LAYER | TABLES)
    first = sha256()
    assert sha256() == first
    folder(tmp_path, LAYER | TABLES, config={**CONFIG, "rope_theta": 1.0})
    second = sha256()
    (tmp_path / "tokenizer.json").write_text("{}")
    third = sha256()
    folder(tmp_path, LAYER)
    assert len({first, second, third, sha256()}) == 4


def quantised(path: Path) -> Path:
    return folder(path, LAYER, config={**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}})


def fp8_without_saying_so(path: Path) -> Path:
    return folder(path, {Q_PROJ: ("F8_E4M3", (16, 16))})


def stacked_experts(path: Path) -> Path:
    return folder(path, {"model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 16, 16)), **LAYER})


def gpt2(path: Path) -> Path:
    return folder(path, LAYER, config={**CONFIG, "model_type": "gpt2"})


def with_bin_alone(path: Path) -> Path:
    folder(path)
    (path / "pytorch_model.bin").write_bytes(b"x")
    return path


def without_config(path: Path) -> Path:
    (folder(path, LAYER) / "config.json").unlink()
    return path


def config_that_is(text: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (folder(path, LAYER) / "config.json").write_text(text)
        return path

    return make


def file_missing(path: Path) -> Path:
    (folder(path, LAYER, TABLES) / "model-00002-of-00002.safetensors").unlink()
    return path


def index_that_is(content: object) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (folder(path, LAYER, TABLES) / "model.safetensors.index.json").write_text(json.dumps(content))
        return path

    return make


def cut_off(path: Path) -> Path:
    file = folder(path, LAYER) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return path


def weights_that_are(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (folder(path, LAYER) / "model.safetensors").write_bytes(content)
        return path

    return make


def gguf(path: Path) -> Path:
    (path / "model.gguf").write_bytes(b"GGUF")
    return path / "model.gguf"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n"
REFUSED = {
    "quantised": (quantised, r"quantised already \(awq-w4a16\); start from"),
    "fp8 without saying so": (fp8_without_saying_so, "q_proj.weight in F8_E4M3, so it is quantised already"),
    "stacked experts": (stacked_experts, "experts in one tensor"),
    "gpt2": (gpt2, "stored transposed"),
    "no config": (without_config, "no config.json"),
    "a config that is not JSON": (config_that_is("{"), "is not JSON"),
    "a config of something else": (config_that_is('{"type": "WordPiece"}'), "model_type"),
    "pickled weights alone": (with_bin_alone, r"no safetensors files, only \.bin; save the model again"),
    "no weights": (folder, "no weights at all"),
    "a file missing": (file_missing, "names model-00002-of-00002.safetensors, which is not there"),
    "an index that is none": (index_that_is({"metadata": {}}), "is not an index"),
    "an index that leads outside": (index_that_is({"weight_map": {"a": "../b.safetensors"}}), "outside of its folder"),
    "a file cut off": (cut_off, "is cut off"),
    "an empty file": (weights_that_are(b""), "is not a safetensors file"),
    "a pointer of Git LFS": (weights_that_are(POINTER), "Git LFS"),
    "a header without end": (weights_that_are(b"\xff" * 64), "is not a safetensors file"),
    "no tokenizer": (lambda path: folder(path, LAYER, tokenizer=False), "has no tokenizer"),
    "no linear layer": (lambda path: folder(path, TABLES), "no linear layers"),
    "a GGUF file": (gguf, "penstock models prepare makes one"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_quantised_is_refused_with_the_reason(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        opened(make(tmp_path))


def test_an_embedding_is_kept_by_its_name_where_the_config_does_not_say_the_vocabulary(tmp_path: Path) -> None:
    found = opened(folder(tmp_path, LAYER | TABLES, config={"model_type": "llama"}))
    assert EMBEDDING not in found.linear_weights()
