"""What is compared is pinned, can be asked, and is told even where it could not be measured."""

import importlib.util
import os
from pathlib import Path
from typing import Any, cast

import pytest

from bench.closed_loop import Sample
from bench.meter import memory_of
from bench.peers.environments import PEERS, NotInstalled, Peer, installed
from bench.peers_part import EFS, Absent, Served
from bench.peers_tables import peers_table
from bench.postgres import PostgresMissing, postgres


def sample(requests: int) -> Sample:
    zeros = dict.fromkeys(("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms", "other_cores"), 0.0)
    counts = dict.fromkeys(("errors", "events", "output_tokens"), 0)
    return Sample(requests=requests, faults={}, seconds=2.0, cpu_s={"server": 0.5, "client": 0.1}, **zeros, **counts)


def served(name: str, *requests: int) -> Served:
    recall, samples = dict.fromkeys(EFS, 0.97), {ef: [sample(each) for each in requests] for ef in EFS}
    return Served(name=name, version="1", worker=cast("Any", None), filled_s=1.0, recall=recall, samples=samples)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_an_adapter_and_exact_versions(peer: Peer) -> None:
    assert importlib.util.find_spec(f"bench.peers.{peer.adapter}") is not None
    assert all(pin.count("==") == 1 for pin in peer.pins)


def test_ratios_are_to_the_first_row_of_the_same_ef_round_by_round() -> None:
    table = peers_table([served("ours", 100, 1000, 100), served("theirs", 50, 100, 200)], [], 10)
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [each["ef"] for each in cells] == ["64", "64", "32", "32"]
    assert [each["to Penstock"] for each in cells] == ["1.00 x", "0.50 x"] * 2, "the median of 0.5, 0.1 and 2"
    assert cells[1]["CPU server"] == "5,000"


def test_a_peer_that_is_absent_has_a_row_that_says_why() -> None:
    table = peers_table([served("ours", 100)], [Absent(name="theirs", version="1", why="no wheel for this machine")], 10)
    row = table.rows[-1]
    assert len(row) == len(table.columns)
    assert row[:3] == ("theirs", "1", "not measured: no wheel for this machine")


async def test_what_cannot_be_installed_is_told_with_what_pip_said(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="nowhere-to-be-found"):
        pins = (f"nowhere-to-be-found @ file://{tmp_path}/nowhere-to-be-found.whl",)
        await installed(Peer(name="x", adapter="x", pins=pins), folder=tmp_path)
    assert not (tmp_path / "x/pins").exists(), "the next run tries again"


async def test_a_folder_without_postgres_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(PostgresMissing, match="initdb"):
        async with postgres(tmp_path):
            pass


def test_memory_that_no_file_holds_is_a_part_of_what_is_resident() -> None:
    memory = memory_of(os.getpid())
    assert 0 < memory.anonymous_mib < memory.rss_mib
