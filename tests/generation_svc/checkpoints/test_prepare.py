import json
import subprocess
import sys
from pathlib import Path

import pytest

from generation_svc.checkpoints import MANIFEST, Checkpoint, prepare, prepared
from generation_svc.checkpoints.manifest import FORMAT_VERSION
from penstock.errors import FailedPrecondition
from tests.generation_svc.processes import ROOT, checkpoint, vllm_python

PRECISIONS = pytest.mark.parametrize("precision", ["bf16", "w8a8"])
real = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]


def quietly(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


def made_before(folder: Path, source: Path) -> Path:
    """A checkpoint as an earlier run would have left it, of a source that is not read again."""
    import hashlib

    path = folder / "tiny-bf16"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    manifest = {
        "precision": "bf16",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "format_version": FORMAT_VERSION,
        "method": "",
        "files": {"model.safetensors": (7, hashlib.sha256(b"weights").hexdigest())},
    }
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


def test_a_checkpoint_that_is_whole_is_found_and_not_made_again(tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(b"GGUF")
    path = made_before(tmp_path / "models", source)
    found = prepare("bf16", source=source, folder=tmp_path / "models", name="tiny", on_step=quietly)
    assert found == Checkpoint(path=path, precision="bf16", size_bytes=7, reused=True)
    assert list(prepared(tmp_path / "models")) == [found]


@pytest.mark.parametrize("damage", ["changed", "missing", "another source"])
def test_a_checkpoint_that_is_damaged_or_of_another_source_is_not_used(tmp_path: Path, damage: str) -> None:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(b"GGUF")
    path = made_before(tmp_path / "models", source)
    if damage == "changed":
        (path / "model.safetensors").write_bytes(b"weightz")
    elif damage == "missing":
        (path / "model.safetensors").unlink()
    else:
        source.write_bytes(b"GGUF2")
    # Made anew, which this source can't be.
    with pytest.raises((FailedPrecondition, OSError, ValueError)):
        prepare("bf16", source=source, folder=tmp_path / "models", name="tiny", on_step=quietly)
    assert [left.name for left in (tmp_path / "models").iterdir()] == ["tiny-bf16"], "what was half made is gone"


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not a file"):
        prepare("bf16", source=tmp_path / "no.gguf", folder=tmp_path, name="tiny", on_step=quietly)


def test_an_environment_without_the_libraries_says_which_one_has_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "generation_svc.checkpoints", "prepare", "--folder", tmp_path, "--precision", "bf16"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make vllm" in done.stderr
    assert list(tmp_path.iterdir()) == []


@PRECISIONS
@pytest.mark.parametrize("_", [pytest.param(0, marks=real, id="real")])
def test_the_default_models_checkpoint_is_what_it_says(precision: str, _: int) -> None:
    path = checkpoint(precision)
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "<|im_start|>" in (path / "chat_template.jinja").read_text()
    if precision == "bf16":
        assert "quantization_config" not in config
        return
    scheme = config["quantization_config"]["config_groups"]["group_0"]
    assert (scheme["weights"]["num_bits"], scheme["weights"]["strategy"]) == (8, "channel")
    assert (scheme["input_activations"]["num_bits"], scheme["input_activations"]["dynamic"]) == (8, True)
    bf16_bytes = (checkpoint("bf16") / "model.safetensors").stat().st_size
    assert (path / "model.safetensors").stat().st_size < 0.65 * bf16_bytes


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quantised_weights_are_near_the_originals() -> None:
    program = """
import sys, json
from safetensors.torch import load_file
a, b = (load_file(f"{path}/model.safetensors") for path in sys.argv[1:])
worst = 0.0
for name in a:
    if name.endswith("_proj.weight"):
        back = b[name].float() * b[name.replace("weight", "weight_scale")].float()
        worst = max(worst, float((back - a[name].float()).abs().max() / a[name].float().abs().max()))
print(json.dumps(worst))
"""
    command = [vllm_python(), "-c", program, checkpoint("bf16"), checkpoint("w8a8")]
    worst = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < worst < 1 / 127
