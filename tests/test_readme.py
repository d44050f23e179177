"""What the README shows is what there is."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from penstock.cli.main import penstock_command
from penstock.cli.settings_table import settings_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_the_settings_table_is_that_of_the_settings() -> None:
    assert settings_markdown() in README, "put the output of `penstock settings` into the README"


@pytest.mark.parametrize("example", ["python_client.py", "retrieval_alone.py", "generation_alone.py", "langchain_rag.py"])
def test_programs_are_those_of_the_examples(example: str) -> None:
    code = (ROOT / "examples" / example).read_text().partition('"""\n\n')[2].strip()
    assert code in [block.strip() for language, block in BLOCKS if language == "python"]


def test_flows_are_those_of_the_examples() -> None:
    shown = [json.loads(block) for language, block in BLOCKS if language == "json"]
    assert shown == [json.loads((ROOT / f"examples/flows/{name}.json").read_text()) for name in ("rag", "rag-short")]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_command_exists() -> None:
    for command in re.findall(
        r"(?:\.venv/bin/)?penstock ([a-z]+(?: [a-z]+)?)", "\n".join(b for kind, b in BLOCKS if kind == "sh")
    ):
        group, _, child = command.partition(" ")
        found = penstock_command.commands[group]
        if hasattr(found, "commands"):
            assert child in found.commands


def test_every_linked_file_exists() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert link in tracked
