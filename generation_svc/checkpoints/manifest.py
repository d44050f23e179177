"""What a checkpoint was made from and what its files should be; and folders that appear whole or not at all."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from penstock.errors import FailedPrecondition

MANIFEST: Final = "penstock-checkpoint.json"
FORMAT_VERSION: Final = 2
"""Raised when the way of making changes, so that older checkpoints are made anew."""

OnStep = Callable[[str, int, int], None]
"""Told of progress: what is being done, how much of it is done, of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides what a checkpoint becomes. `method` is empty for bf16."""

    precision: str
    source_sha256: str
    method: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint was made from, and the sizes and SHA-256 of its files."""

    precision: str
    source_sha256: str
    format_version: int
    files: dict[str, tuple[int, str]]
    method: str = ""

    @property
    def recipe(self) -> Recipe:
        """What it was made by."""
        return Recipe(precision=self.precision, source_sha256=self.source_sha256, method=self.method)

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A prepared checkpoint. `reused` says that it had been made before."""

    path: Path
    precision: str
    size_bytes: int
    reused: bool = True


def prepared(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints in a folder, by their manifests."""
    for manifest_path in sorted(folder.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(manifest_path.parent)
        if manifest is not None:
            yield Checkpoint(path=manifest_path.parent, precision=manifest.precision, size_bytes=manifest.size_bytes)


def found_or_made(path: Path, recipe: Recipe, make: Callable[[Path], None], on_step: OnStep) -> Checkpoint:
    """The checkpoint at `path`, if it was made by this recipe and is undamaged; else made by `make`, which fills a folder.

    What was there is replaced. Raises FailedPrecondition when the folder can't be written.
    """
    if (found := _verified(path, recipe, on_step)) is not None:
        return Checkpoint(path=path, precision=recipe.precision, size_bytes=found.size_bytes)
    try:
        with _appearing_whole(path) as target:
            make(target)
            manifest = _write_manifest(target, recipe, on_step)
    except OSError as error:
        message = f"cannot write the checkpoint {path}: {error}"
        raise FailedPrecondition(message) from error
    return Checkpoint(path=path, precision=recipe.precision, size_bytes=manifest.size_bytes, reused=False)


def read_manifest(path: Path) -> Manifest | None:
    """A checkpoint's manifest; None where there is none that can be read."""
    try:
        return Manifest(**json.loads((path / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def sha256_of(path: Path) -> str:
    """Of a file. Raises FailedPrecondition when it is none."""
    if not path.is_file():
        message = f"{path} is not a file; name a GGUF file"
        raise FailedPrecondition(message)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """A folder to fill. It becomes `path` when the block ends well, and is gone when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as made:
        target = Path(made) / path.name
        target.mkdir()
        yield target
        if path.exists():  # Of another source or version, or damaged.
            path.rename(Path(made) / "before")
        target.rename(path)


def _verified(path: Path, recipe: Recipe, on_step: OnStep) -> Manifest | None:
    manifest = read_manifest(path)
    if manifest is None or manifest.format_version != FORMAT_VERSION or manifest.recipe != recipe:
        return None
    for number, (name, (size, sha256)) in enumerate(manifest.files.items()):
        file = path / name
        if not file.is_file() or file.stat().st_size != size or sha256_of(file) != sha256:
            return None
        on_step("verifying", number + 1, len(manifest.files))
    return manifest


def _write_manifest(target: Path, recipe: Recipe, on_step: OnStep) -> Manifest:
    names = sorted(file.name for file in target.iterdir())
    files: dict[str, tuple[int, str]] = {}
    for number, name in enumerate(names):
        (target / name).chmod(0o644)  # safetensors keeps its files to their owner, who need not be the service's user.
        files[name] = ((target / name).stat().st_size, sha256_of(target / name))
        on_step("checksums", number + 1, len(names))
    manifest = Manifest(format_version=FORMAT_VERSION, files=files, **asdict(recipe))
    (target / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
    return manifest
