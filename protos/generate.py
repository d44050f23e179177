"""Generates the stubs in penstock/ from protos/: `make protos`.

Package = directory = import path, so protoc's output needs no rewriting. The stubs are committed; a test regenerates them into
a scratch directory and compares.
"""

import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent


def generate(out: Path) -> None:
    """Writes *_pb2.py, *_pb2.pyi and *_pb2_grpc.py for every proto below `out`.

    Raises RuntimeError when protoc refuses a file.
    """
    includes = [PROTOS, files("grpc_tools") / "_proto", distribution("googleapis-common-protos").locate_file("")]
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", *(f"--proto_path={path}" for path in includes)]
    arguments += [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", *sources]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused a file; its message is above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
