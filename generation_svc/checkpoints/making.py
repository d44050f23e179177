"""Making checkpoints: from the default GGUF file (`prepare`), and W8A8 from any Hugging Face folder (`quantise`)."""

import asyncio
from pathlib import Path
from typing import Final, Literal

from generation_svc.checkpoints.calibrated import Calibration, calibrate
from generation_svc.checkpoints.from_gguf import unpack_gguf
from generation_svc.checkpoints.hugging_face import HuggingFaceFolder, opened
from generation_svc.checkpoints.manifest import Checkpoint, OnStep, Recipe, found_or_made, read_manifest, sha256_of
from generation_svc.checkpoints.rounding import round_to_nearest
from generation_svc.hub import fetched
from penstock.errors import FailedPrecondition

Precision = Literal["bf16", "w8a8"]
Method = Literal["round-to-nearest", "smoothquant", "gptq"]
METHODS: Final[tuple[Method, ...]] = ("round-to-nearest", "smoothquant", "gptq")


def prepare(precision: Precision, *, source: Path, folder: Path, name: str, on_step: OnStep) -> Checkpoint:
    """The checkpoint `folder/name-precision` of a GGUF file, made or found. w8a8 makes bf16 on the way.

    Raises FailedPrecondition when a library is missing or the source can't be read.
    """
    path, source_sha256 = folder / f"{name}-{precision}", sha256_of(source)
    if precision == "bf16":
        recipe = Recipe(precision="bf16", source_sha256=source_sha256)
        return found_or_made(path, recipe, lambda target: unpack_gguf(source, target, on_step), on_step)

    def make(target: Path) -> None:
        plain = prepare("bf16", source=source, folder=folder, name=name, on_step=on_step)
        round_to_nearest(opened(plain.path), target, on_step)

    recipe = Recipe(precision="w8a8", source_sha256=source_sha256, method="round-to-nearest")
    return found_or_made(path, recipe, make, on_step)


def quantise(
    reference: str, path: Path, *, method: Method, calibration: Calibration | None, replace: bool, on_step: OnStep
) -> Checkpoint:
    """A W8A8 checkpoint at `path` of a Hugging Face folder, or of a repository on a hub; made, or found made the same way.

    Raises FailedPrecondition for a source that can't be quantised, a library that is missing, and a `path` that has something
    else in it, unless that is a checkpoint of ours and `replace` is set.
    """
    source = opened(_located(reference))
    if path.resolve() == source.path.resolve() or source.path.resolve() in path.resolve().parents:
        raise FailedPrecondition(f"{path} is the source itself or lies in it; name another folder for the checkpoint")
    described = _described(method, calibration)
    recipe = Recipe(precision="w8a8", source_sha256=source.sha256(on_step), method=described)
    _check_may_be_written(path, recipe, replace=replace)
    return found_or_made(path, recipe, lambda target: _make(source, target, method, calibration, on_step), on_step)


def _make(source: HuggingFaceFolder, target: Path, method: Method, calibration: Calibration | None, on_step: OnStep) -> None:
    if calibration is None:
        round_to_nearest(source, target, on_step)
    else:
        calibrate(source, target, method, calibration, on_step)


def _located(reference: str) -> Path:
    path = Path(reference)
    if path.exists():
        return path
    if path.is_absolute() or reference.startswith((".", "~")):
        raise FailedPrecondition(
            f"{reference} is not there; name a Hugging Face folder, or a repository on a hub as owner/name"
        )
    return asyncio.run(fetched(reference))


def _described(method: Method, calibration: Calibration | None) -> str:
    if method == "round-to-nearest":
        if calibration is not None:
            raise FailedPrecondition(
                "round-to-nearest does not look at texts; leave out --calibration, or ask for another method"
            )
        return method
    if calibration is None:
        raise FailedPrecondition(f"{method} needs texts that are like what the model will read: --calibration FILE")
    return f"{method}, {calibration.described()}"


def _check_may_be_written(path: Path, recipe: Recipe, *, replace: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    manifest = read_manifest(path)
    if manifest is None:
        raise FailedPrecondition(f"{path} has something in it that is no checkpoint of ours; name another folder")
    if manifest.recipe != recipe and not replace:
        made = f"{manifest.precision} {manifest.method}".strip()
        message = f"{path} has a checkpoint of another source or method ({made}); name another folder, or say --replace"
        raise FailedPrecondition(message)
