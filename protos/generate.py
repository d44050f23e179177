"""Generates the stubs in penstock/ from protos/: `make protos`.

Package = directory = import path, so protoc's output needs no rewriting. What is generated is committed; a test regenerates it
into a scratch directory and compares. The comments, which stubs lose, go into a file of their own for the OpenAPI document.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from grpc_tools import protoc

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent
COMMENTS = Path("penstock", "transcoding", "comments.json")


def generate(out: Path) -> None:
    """Writes *_pb2.py, *_pb2.pyi and *_pb2_grpc.py for every proto below `out`, and their comments.

    Raises RuntimeError when protoc refuses a file.
    """
    includes = [PROTOS, files("grpc_tools") / "_proto", distribution("googleapis-common-protos").locate_file("")]
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", *(f"--proto_path={path}" for path in includes)]
    described = out / "descriptors.binpb"
    arguments += [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    arguments += [f"--descriptor_set_out={described}", "--include_source_info"]
    if protoc.main([*arguments, *sources]) != 0:
        raise RuntimeError("protoc refused a file; its message is above")
    write_comments(FileDescriptorSet.FromString(described.read_bytes()), out / COMMENTS)
    described.unlink()


def write_comments(described: FileDescriptorSet, path: Path) -> None:
    """Writes {full name: comment} of every commented element; an enum's value stands under its enum."""
    comments = dict(entry for file in described.file for entry in _comments(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(comments, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        if location.leading_comments:
            name = _full_name(file, location.path)
            text = " ".join(line.strip() for line in location.leading_comments.splitlines())
            if name:
                yield name, text.strip()


def _full_name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """The name of what a location's path leads to: pairs of a field's number and an index. Empty for options and the syntax."""
    names, node = [file.package], file
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = node.DESCRIPTOR.fields_by_number[number]
        if field.type != FieldDescriptor.TYPE_MESSAGE or not field.is_repeated:
            return ""
        element: Message = getattr(node, field.name)[index]
        names.append(element.name)
        node = element
    return ".".join(names) if len(names) > 1 else ""


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
