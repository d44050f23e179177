"""`penstock flow import`, and an export wherever the command line takes a flow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).parent / "penstock"
EXPORTS = Path(__file__).parents[2] / "gateway/langflow/exports"
BASIC = EXPORTS / "1.13.0-basic-prompting.json"


def penstock(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PENSTOCK, *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_the_mapping_is_printed_component_by_component_and_nothing_is_kept() -> None:
    done = penstock("flow", "import", BASIC, "--explain", "--gateway", "127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert "ChatInput-b6UCc (Chat Input) -> ChatInput-b6UCc (input), ChatInput-b6UCc-stored (history)" in done.stdout
    assert "LanguageModelComponent-FLeYF (Language Model) -> LanguageModelComponent-FLeYF (generate)" in done.stdout


def test_a_document_is_written_with_the_model_and_the_collection_that_are_chosen(tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    chosen = ("--model", "small", "--collection", "squad", "--output", file)
    done = penstock("flow", "import", EXPORTS / "1.8.0-knowledge-retrieval.json", *chosen)
    assert done.returncode == 0, done.stderr
    nodes = json.loads(file.read_text())["nodes"]
    assert [node["params"]["collection"] for node in nodes if node["type"] == "retrieve"] == ["squad"]
    assert penstock("flow", "validate", file).returncode == 0
    printed = penstock("flow", "import", BASIC, "--model", "small", "--output", "-")
    assert '"model": "small"' in printed.stdout


def test_every_component_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    done = penstock("flow", "import", EXPORTS / "1.2.0-loop-template.json", "--explain")
    assert done.returncode == 1
    assert "node 'ArXivComponent-LChQN'" in done.stderr
    assert "http node" in done.stderr
    file = tmp_path / "ours.json"
    file.write_text('{"nodes": []}')
    assert "not a LangFlow export" in penstock("flow", "import", file).stderr


@pytest.mark.parametrize("name", ["1.13.0-basic-prompting", "1.1.4-document-qa"])
def test_an_export_is_valid_as_it_is(name: str) -> None:
    done = penstock("flow", "validate", EXPORTS / f"{name}.json")
    assert (done.returncode, "valid" in done.stdout) == (0, True), done.stderr


def test_an_import_goes_to_the_gateway() -> None:
    done = penstock("flow", "import", BASIC, "--gateway", "127.0.0.1:1")
    assert "the gateway service cannot be reached" in done.stderr
