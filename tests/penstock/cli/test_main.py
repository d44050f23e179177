"""How the command line tells of failures."""

import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = Path(sys.executable).parent / "penstock"


def penstock(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PENSTOCK, *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ask", "anything", "--gateway", "127.0.0.1:1"), "the gateway service cannot be reached"),
        (("search", "squad", "anything", "--retrieval", "127.0.0.1:1"), "the retrieval service cannot be reached"),
        (("models", "list", "--generation", "127.0.0.1:1"), "the generation service cannot be reached"),
        (("flow", "run", "rag", "--inputs", "{"), "one JSON object"),
        (("flow", "run", "rag", "-i", "question"), "NAME=VALUE"),
    ],
)
def test_a_failure_is_one_clear_message_and_exit_code_1(arguments: tuple[str, ...], says: str) -> None:
    done = penstock(*arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flow_is_checked_without_a_server_and_every_fault_told_with_its_node(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{"nodes": [{"id": "q", "type": "inpt"}, {"id": "o", "type": "output"}], "edges": []}')
    done = penstock("flow", "validate", str(file))
    assert done.returncode == 1
    assert "node 'q' type" in done.stderr
    assert "did you mean 'input'" in done.stderr
    assert "node 'o'" in done.stderr


def test_the_example_flows_are_valid() -> None:
    files = sorted(str(path) for path in (Path(__file__).parents[3] / "examples/flows").glob("*.json"))
    done = penstock("flow", "validate", *files)
    assert (done.returncode, done.stdout.count("valid")) == (0, len(files))


def test_settings_are_printed_with_their_bounds() -> None:
    table = penstock("settings").stdout
    assert "| `PENSTOCK_RETRIEVAL_TOP_K_MAX` | `1000` | ≥ 1, ≤ 100000 |" in table
    assert "PENSTOCK_GATEWAY_RETRIEVAL_TARGET" in table
    assert "PENSTOCK_GENERATION_ENGINE" in table


@pytest.mark.parametrize("module", ["gateway", "retrieval_svc", "generation_svc"])
def test_a_service_with_a_wrong_setting_says_which_and_exits_with_2(module: str) -> None:
    name = f"PENSTOCK_{module.removesuffix('_svc').upper()}_CONCURRENCY_MAX"
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={"PATH": "/usr/bin", name: "0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert name in done.stderr
