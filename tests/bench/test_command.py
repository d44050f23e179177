"""The command itself, over the smallest run that there is. What it measures is looked at in shape, never in size."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


async def bench(tmp_path: Path, *options: str) -> Any:
    kept = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "bench", *options, "--rounds", "1", "--seconds", "0.2", "--json", str(kept)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return json.loads(kept.read_bytes())


@pytest.mark.e2e
async def test_the_flow_part_asks_directly_and_over_both_protocols_without_an_error(tmp_path: Path) -> None:
    numbers = await bench(tmp_path, "--part", "flow", "--in-flight", "2")
    samples = numbers["parts"]["flow"]["samples"]
    unary = {each["path"]: each for each in samples if each["table"] == "unary"}
    assert set(unary) == {"direct", "HTTP", "gRPC"}
    for each in unary.values():
        assert each["requests"] > 0
        assert each["errors"] == 0
        assert each["in_flight"] == 2
    assert set(unary["HTTP"]["cpu_s"]) == {"gateway", "generation", "fake", "client"}
    assert numbers["machine"]["cores"]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.model
async def test_the_search_part_finds_what_faiss_finds(tmp_path: Path) -> None:
    numbers = await bench(tmp_path, "--part", "search", "--chunks", "100")
    samples = numbers["parts"]["search"]["samples"]
    by_vector = [each for each in samples if each["table"] == "vector"]
    assert [each["in_flight"] for each in by_vector] == [1, 8, 32]
    for each in by_vector:
        assert each["same_ids"] == 1.0
        assert each["errors"] == 0
        assert each["alone"]["cpu_us"] > 0
    assert any(each["table"] == "text" and each["requests"] > 0 for each in samples)


@pytest.mark.e2e
@pytest.mark.slow
async def test_the_retrieval_part_asks_singly_and_in_batches_and_finds_what_faiss_finds(tmp_path: Path) -> None:
    numbers = await bench(tmp_path, "--part", "retrieval", "--graph-size", "500")
    samples = numbers["parts"]["retrieval"]["samples"]
    assert {(each["ef"], each["way"]) for each in samples} == {
        (64, "Search"), (64, "SearchBatch of 32"), (32, "Search"), (32, "SearchBatch of 32"),
    }  # fmt: skip
    for each in samples:
        assert each["recall"] > 0.95
        assert each["errors"] == 0
        assert each["faiss_us"] > 0


@pytest.mark.e2e
@pytest.mark.slow
async def test_the_large_part_starts_again_from_a_checkpoint_and_from_a_snapshot(tmp_path: Path) -> None:
    numbers = await bench(tmp_path, "--part", "large", "--large-size", "2000")
    samples = numbers["parts"]["large"]["samples"]
    assert [each["found"] for each in samples if each["table"] == "starts"] == [200, 200]
    assert [each["chunks"] for each in samples if each["table"] == "memory"][-1] == 2000
