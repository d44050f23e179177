"""The flow that LangFlow and Penstock serve side by side: what is compared, and the arithmetic of its tables."""

import json
from typing import Any

import pytest

from bench.closed_loop import Sample
from bench.events_part import LONG, SHORT, events_table
from bench.langflow_part import Asked, Server
from bench.langflow_peer import servers
from bench.langflow_peer.environments import LANGFLOW, LFX
from bench.langflow_tables import langflow_tables, served_ms
from gateway.importing import validate


def sample(requests: int, events: int = 0, **cpu_s: float) -> Sample:
    zeros = dict.fromkeys(("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms", "other_cores"), 0.0)
    counts = dict.fromkeys(("errors", "output_tokens"), 0)
    return Sample(
        requests=requests, events=events, faults={}, seconds=2.0, cpu_s={"fake": 9.0, "client": 9.0, **cpu_s}, **zeros, **counts
    )


def way(name: str, *samples: Sample) -> Asked:
    return Asked(name=name, options={}, bodies=(), pids={}, samples={8: list(samples)})


def cells(table: Any) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_what_serves_is_counted_whole_and_what_asks_is_not() -> None:
    assert served_ms(sample(100, gateway=0.05, generation=0.05)) == pytest.approx(1.0)


def test_langflows_cpu_is_told_in_units_of_each_others_round_by_round() -> None:
    ours = way("Penstock", *(sample(1000, gateway=g, generation=0.4) for g in (0.6, 0.1, 0.6)))
    theirs = way("LangFlow", *(sample(10, server=2.0) for _ in range(3)))
    first, second = cells(langflow_tables([ours, theirs], [], ["lfx serve is not measured: x"])[0])
    assert (first["CPU server"], first["LangFlow to this"]) == ("1", "200 x"), "the median of 200, 400 and 200"
    assert (second["CPU server"], second["CPU gateway"], second["LangFlow to this"]) == ("200", "-", "1 x")


def test_a_peer_that_is_absent_is_told_below_the_table() -> None:
    table, _ = langflow_tables([way("Penstock", sample(1, gateway=0.1))], [], ["LangFlow is not measured: no wheel"])
    assert table.note.endswith("LangFlow is not measured: no wheel.")


def test_a_start_is_told_until_the_first_answer() -> None:
    memory = [{"rss_mib": 1.0, "pss_mib": 1.0}] * 2
    _, table = langflow_tables([way("a", sample(1))], [Server(name="a", pids=(), ready_s=1.5, first_s=0.5, memory=memory)], [])
    assert cells(table)[0]["together s"] == "2"


def test_a_tokens_cost_is_what_the_long_answer_takes_more() -> None:
    short, long = (
        sample(10, events=10 * SHORT, gateway=0.01, generation=0),
        sample(10, events=10 * LONG, gateway=0.11, generation=0),
    )
    (row,) = cells(events_table({(4, "Penstock", 1): {SHORT: [short], LONG: [long]}}))
    assert (row["CPU gateway/token"], row["CPU gateway/event"], row["CPU gateway, short answer"]) == ("50", "50", "1,000")


def test_the_export_is_one_that_penstock_imports_and_knows_its_model() -> None:
    text = json.dumps(servers.export("127.0.0.1:1"))
    assert "http://127.0.0.1:1/v1" in text
    assert "model.invalid" not in text
    assert [node.type for node in validate(text).nodes if node.type != "history"] == ["input", "prompt", "generate", "output"]


def test_the_peers_are_the_versions_that_are_named() -> None:
    assert LANGFLOW[0] == "langflow==1.13.0"
    assert LFX[0] == "lfx==1.13.0"
