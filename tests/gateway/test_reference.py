"""What is written about flows is true: the reference is current, and every flow in the guide is valid."""

import json
import re
from pathlib import Path

import pytest

from gateway.nodes import NODE_TYPES
from gateway.reference import REFERENCE_FILE, reference_text
from gateway.validation import examine

GUIDE = Path(__file__).parents[2] / "docs/flows.md"
FLOWS = re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_committed_reference_is_what_the_models_say() -> None:
    assert REFERENCE_FILE.read_text(encoding="utf-8") == reference_text(), "run `python -m gateway.reference`"


def test_every_node_type_is_in_the_reference() -> None:
    assert set(re.findall(r"^## (\w+)$", reference_text(), re.MULTILINE)) >= NODE_TYPES.keys()


@pytest.mark.parametrize("text", FLOWS, ids=lambda text: json.loads(text)["nodes"][-2]["id"])
def test_flows_of_the_guide_are_valid(text: str) -> None:
    assert examine(text)[1] == ()
