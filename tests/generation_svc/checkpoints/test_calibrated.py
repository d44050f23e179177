"""The texts that calibrate. llm-compressor itself runs where its environment is (make llm-compressor)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from generation_svc.checkpoints import Calibration
from penstock.errors import FailedPrecondition
from tests.generation_svc.processes import ROOT, checkpoint

PYTHON = Path(os.environ.get("PENSTOCK_LLM_COMPRESSOR_PYTHON", ROOT / ".venv-llm-compressor/bin/python"))
CORPUS = ROOT / "examples/corpus/squad_xquad_en/corpus.jsonl"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_texts_are_those_of_json_lines(tmp_path: Path) -> None:
    file = written(tmp_path / "texts.jsonl", '{"text": "one"}\n\n{"contents": "two", "id": 2}\n{"text": "three"}\n')
    assert Calibration(file=file).texts() == ["one", "two", "three"]
    assert Calibration(file=file, texts_max=2).texts() == ["one", "two"]


def test_texts_are_the_paragraphs_of_plain_text(tmp_path: Path) -> None:
    file = written(tmp_path / "texts.txt", "\nA dam\nholds water.\n\n\nA turbine turns.")
    assert Calibration(file=file).texts() == ["A dam\nholds water.\n", "A turbine turns."]


def test_the_example_corpus_can_be_used() -> None:
    texts = Calibration(file=CORPUS, texts_max=32).texts()
    assert len(texts) == 32
    assert all(len(text) > 100 for text in texts)


def test_a_text_is_cut_before_the_tokenizer_sees_it(tmp_path: Path) -> None:
    file = written(tmp_path / "texts.txt", "a" * 1_000_000)
    assert len(Calibration(file=file, tokens_max=16).texts()[0]) == 512


@pytest.mark.parametrize("content", ["", "\n\n", '{"id": 1}', '{"text": 7}', "{", "[]", "3"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(FailedPrecondition, match="no texts to calibrate with"):
        Calibration(file=written(tmp_path / "texts.jsonl", content)).texts()


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(FailedPrecondition, match="no texts to calibrate with"):
        Calibration(file=tmp_path / "texts.txt").texts()


def test_other_texts_or_more_of_them_are_another_recipe(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one.txt", "one"), written(tmp_path / "other.txt", "other")
    described = {
        Calibration(file=one).described(), Calibration(file=other).described(), Calibration(file=one, texts_max=1).described(),
        Calibration(file=one, tokens_max=16).described(),
    }  # fmt: skip
    assert len(described) == 4


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_llm_compressor_makes_a_checkpoint_in_the_same_format(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"llm-compressor's environment is not there ({PYTHON}): make llm-compressor")
    source, target = checkpoint("bf16"), tmp_path / "target"
    command = [PYTHON, "-m", "generation_svc.checkpoints", "quantise", source, target, "--method", "smoothquant"]
    few = ["--calibration", CORPUS, "--calibration-texts", "4", "--calibration-tokens", "64"]
    done = subprocess.run([*command, *few], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = json.loads((checkpoint("w8a8") / "config.json").read_text())
    theirs = json.loads((target / "config.json").read_text())
    assert theirs["dtype"] == ours["dtype"] == "bfloat16"
    schemes = [each["quantization_config"]["config_groups"]["group_0"] for each in (ours, theirs)]
    for part in ("weights", "input_activations"):
        ours_says, theirs_says = (
            {name: scheme[part][name] for name in ("num_bits", "type", "strategy", "dynamic", "symmetric")}
            for scheme in schemes
        )
        assert ours_says == theirs_says
    sizes = [(path / "model.safetensors").stat().st_size for path in (checkpoint("w8a8"), target)]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]
