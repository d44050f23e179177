"""Quantising any folder: what is refused beforehand here, and the real thing in vLLM's environment."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generation_svc.checkpoints import MANIFEST, Calibration, quantise
from generation_svc.checkpoints.hugging_face import opened
from generation_svc.checkpoints.manifest import FORMAT_VERSION
from penstock.errors import FailedPrecondition
from tests.generation_svc.checkpoints.files import DOWN_PROJ, EMBEDDING, LAYER, Q_PROJ, TABLES, folder, numbers, read
from tests.generation_svc.processes import ROOT, vllm_python


def really(test: Callable[..., None]) -> Callable[..., None]:
    """Runs it in vLLM's environment."""
    return pytest.mark.vllm(pytest.mark.slow(pytest.mark.timeout(900)(test)))


def quietly(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


def rounded(source: Path | str, target: Path, **changed: Any) -> Any:
    given = {"method": "round-to-nearest", "calibration": None, "replace": False, "on_step": quietly, **changed}
    return quantise(str(source), target, **given)


def made_before(path: Path, source: Path, **changed: str) -> Path:
    """A checkpoint as an earlier run of `quantise` would have left it."""
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    manifest = {
        "precision": "w8a8",
        "source_sha256": opened(source).sha256(quietly),
        "format_version": FORMAT_VERSION,
        "method": "round-to-nearest",
        "files": {"model.safetensors": (7, hashlib.sha256(b"weights").hexdigest())},
        **changed,
    }
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


def test_a_second_run_finds_what_the_first_made(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    path = made_before(tmp_path / "target", source)
    found = rounded(source, path)
    assert (found.path, found.reused, found.precision, found.size_bytes) == (path, True, "w8a8", 7)


@pytest.mark.parametrize("changed", [{"source_sha256": "0"}, {"method": "gptq, 256 texts"}], ids=["source", "method"])
def test_a_checkpoint_of_another_source_or_method_is_not_replaced_unless_asked(tmp_path: Path, changed: dict[str, str]) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    path = made_before(tmp_path / "target", source, **changed)
    with pytest.raises(FailedPrecondition, match=r"another source or method .* --replace"):
        rounded(source, path)
    assert (path / "model.safetensors").read_bytes() == b"weights"


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    (tmp_path / "target").mkdir()
    (tmp_path / "target/thesis.tex").write_text("x")
    with pytest.raises(FailedPrecondition, match="no checkpoint of ours; name another folder"):
        rounded(source, tmp_path / "target", replace=True)
    assert [file.name for file in (tmp_path / "target").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("inner", ["", "w8a8"])
def test_the_source_is_not_written_into(tmp_path: Path, inner: str) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    with pytest.raises(FailedPrecondition, match="is the source itself or lies in it"):
        rounded(source, source / inner)


@pytest.mark.parametrize(
    ("method", "with_texts", "says"),
    [
        ("gptq", False, "gptq needs texts .* --calibration FILE"),
        ("smoothquant", False, "smoothquant needs texts"),
        ("round-to-nearest", True, "does not look at texts"),
    ],
)
def test_methods_that_calibrate_ask_for_texts_and_the_other_refuses_them(
    tmp_path: Path, method: str, with_texts: bool, says: str
) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    calibration = Calibration(file=source / "config.json") if with_texts else None
    with pytest.raises(FailedPrecondition, match=says):
        rounded(source, tmp_path / "target", method=method, calibration=calibration)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("/not/there", "/not/there is not there; name a Hugging Face folder"),
        ("./not-there", "is not there"),
        ("owner/not-there", "neither a file or folder here nor to be had from the hub"),
    ],
)
def test_a_source_that_is_nowhere_is_refused(
    tmp_path: Path, reference: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FailedPrecondition, match=says):
        rounded(reference, tmp_path / "target")


def run(source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    command = [vllm_python(), "-m", "generation_svc.checkpoints", "quantise", source, target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A real checkpoint of two files with tied embeddings and a row of zeros: source, target and the source's numbers."""
    base = tmp_path_factory.mktemp("quantised")
    values = {Q_PROJ: numbers((16, 16), 1), DOWN_PROJ: numbers((16, 32), 2), EMBEDDING: numbers((64, 16), 3)}
    values[Q_PROJ][5] = 0.0
    source = folder(base / "source", LAYER, TABLES, values=values)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    done = run(source, base / "made/target")
    assert done.returncode == 0, done.stderr
    return source, base / "made/target", values


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: array for file in path.glob("*.safetensors") for name, array in read(file).items()}


@really
def test_every_weight_is_within_half_a_step_of_the_original(made: tuple) -> None:
    _, target, values = made
    found = weights(target)
    for name in (Q_PROJ, DOWN_PROJ):
        scale = found[name.removesuffix("weight") + "weight_scale"]
        assert found[name].dtype == np.int8
        assert scale.shape == (16, 1)
        assert np.abs(found[name] * scale - values[name]).max() <= 0.5001 * scale.max()
        assert np.abs(found[name]).max() == 127, "the whole range is used"
    assert not found[Q_PROJ][5].any()


@really
def test_tied_embeddings_and_norms_stay_as_they_are(made: tuple) -> None:
    _, target, values = made
    found = weights(target)
    assert np.array_equal(found[EMBEDDING], values[EMBEDDING])
    assert "lm_head.weight" not in found
    config = json.loads((target / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert config["quantization_config"]["ignore"] == ["lm_head", "model.embed_tokens"]


@really
def test_the_files_are_the_sources_with_an_index_of_all_tensors(made: tuple) -> None:
    source, target, _ = made
    assert sorted(file.name for file in target.iterdir()) == sorted([*(file.name for file in source.iterdir()), MANIFEST])
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(weights(target))
    assert index["metadata"]["total_size"] == sum(
        array.nbytes // (2 if array.dtype == np.float32 and not name.endswith("_scale") else 1)
        for name, array in weights(target).items()
    )
    assert [left.name for left in target.parent.iterdir()] == ["target"]


@really
def test_one_that_was_damaged_is_made_again(made: tuple) -> None:
    source, target, _ = made
    file = target / "model-00001-of-00002.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    done = run(source, target)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == whole


@really
def test_weights_that_are_not_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    values = {DOWN_PROJ: np.full((16, 32), np.nan, np.float32)}
    done = run(folder(tmp_path / "source", LAYER | TABLES, values=values), tmp_path / "made/target")
    assert done.returncode == 1
    assert f"{DOWN_PROJ} has values that are not numbers" in done.stderr
    assert list((tmp_path / "made").iterdir()) == []


def test_an_environment_without_the_library_says_which_one_has_it(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Dams hold water."}')
    with pytest.raises(FailedPrecondition, match=r"needs llmcompressor, which is not in this .* make llm-compressor"):
        rounded(source, tmp_path / "target", method="gptq", calibration=Calibration(file=texts))
    assert not (tmp_path / "target").exists()
