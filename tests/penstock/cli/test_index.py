"""`penstock index` as its users call it: real processes, a record in SQLite."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.e2e


def penstock(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_penstock(), *arguments], capture_output=True, text=True, timeout=200, env=environment(folder))


def _penstock() -> str:
    return str(Path(sys.executable).parent / "penstock")


def environment(folder: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
    return clean | {"PENSTOCK_RETRIEVAL_DATA_DIR": str(folder / "data"), "COLUMNS": "200"}


def corpus(path: Path, count: int) -> Path:
    with path.open("w") as lines:
        for at in range(count):
            record = {"id": f"c{at}", "text": f"text {at}", "vector": [float(at % 7), 1.0, float(at % 5)]}
            lines.write(json.dumps(record) + "\n")
    return path


def test_a_build_shows_what_came_of_it_and_what_was_left_out(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 20)
    path.write_text(path.read_text() + "{broken\n")
    done = penstock("index", "build", str(path), "--collection", "docs", "--dimension", "3", "--shards", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "built docs" in done.stdout
    assert "20 in 2 shards" in done.stdout
    assert f"{path}:21: it is not JSON" in done.stdout
    assert "100%" in done.stderr


def test_errors_are_told_with_their_reason_and_what_to_do(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 3)
    build = ("index", "build", str(path), "--collection", "docs", "--dimension", "3")
    assert penstock(*build, folder=tmp_path).returncode == 0
    again = penstock(*build, folder=tmp_path)
    assert again.returncode == 1
    assert "ALREADY_EXISTS" in again.stderr
    assert "--replace" in again.stderr
    assert penstock(*build, "--replace", folder=tmp_path).returncode == 0
    wrong = penstock("index", "build", str(path), "--collection", "Docs", "--dimension", "3", folder=tmp_path)
    assert "a collection's id is" in wrong.stderr
    nowhere = penstock("index", "build", str(tmp_path / "none"), "--collection", "other", "--dimension", "3", folder=tmp_path)
    assert "there is no such file" in nowhere.stderr


def test_a_build_that_was_interrupted_is_listed_gone_on_with_or_discarded(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 60_000)
    build = [_penstock(), "index", "build", str(path), "--collection", "docs", "--dimension", "3"]
    with subprocess.Popen(build, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 120
        while " 0 chunks" in (told := penstock("index", "builds", folder=tmp_path).stdout) or not told:
            assert time.monotonic() < until
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    assert "docs" in penstock("index", "builds", folder=tmp_path).stdout
    assert penstock("index", "discard", "docs", folder=tmp_path).returncode == 0
    assert penstock("index", "builds", folder=tmp_path).stdout == ""
    assert "no build of 'docs'" in penstock("index", "discard", "docs", folder=tmp_path).stderr


def test_when_the_command_is_killed_its_processes_end(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 60_000)
    build = [_penstock(), "index", "build", str(path), "--collection", "docs", "--dimension", "3"]
    with subprocess.Popen(build, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        below: list[psutil.Process] = []
        while len(below) < 2:
            assert running.poll() is None
            below = psutil.Process(running.pid).children(recursive=True)
        running.kill()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
