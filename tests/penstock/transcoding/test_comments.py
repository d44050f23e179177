import subprocess
import sys
from pathlib import Path

import pytest

from penstock.flow.v1 import flow_pb2
from penstock.generation.v1 import generation_pb2
from penstock.retrieval.v1 import retrieval_pb2
from penstock.transcoding.comments import comment

ROOT = Path(__file__).parents[3]
COMMENTS = ROOT / "penstock" / "transcoding" / "comments.json"


def test_regenerating_the_comments_changes_nothing(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)], check=True)
    assert (tmp_path / COMMENTS.relative_to(ROOT)).read_text() == COMMENTS.read_text()
    assert not list(tmp_path.glob("*.binpb"))


def elements(message):
    yield message.full_name
    yield from (field.full_name for field in message.fields)
    for enum in message.enum_types:
        yield enum.full_name
    for nested in message.nested_types:
        yield from elements(nested)


@pytest.mark.parametrize("module", [flow_pb2, generation_pb2, retrieval_pb2], ids=lambda module: module.DESCRIPTOR.package)
def test_every_element_of_our_protos_has_its_comment(module):
    file = module.DESCRIPTOR
    names = [name for message in file.message_types_by_name.values() for name in elements(message)]
    for enum in file.enum_types_by_name.values():
        names += [enum.full_name, *(f"{enum.full_name}.{value.name}" for value in enum.values)]
    for service in file.services_by_name.values():
        names += [service.full_name, *(method.full_name for method in service.methods)]
    assert [name for name in names if not comment(name)] == []


def test_what_has_no_comment_has_an_empty_one():
    assert comment("no.such.Thing") == ""
