"""The shape of the affinity part's workload, never its numbers."""

import itertools

from bench.affinity_part import _Answered, _Run, _table
from bench.affinity_workload import FLOWS, TURNS, workload
from gateway.replicas.prefixes import Prefix


def test_questions_share_instructions_and_passages_and_conversations_grow() -> None:
    asked = workload("mark", passage_count=8)
    assert [each.kind for each in asked].count("rag") == 8 * 4
    assert [each.kind for each in asked].count("chat") == 2 * TURNS
    assert len({each.request.system for each in asked}) == FLOWS
    assert all(each.request.system.startswith("mark ") for each in asked)
    talks = [each.request.prompt for each in asked if each.kind == "chat" and "what of 0 and 0" in each.request.prompt]
    assert len(talks) == TURNS
    for shorter, longer in itertools.pairwise(talks):
        assert longer.startswith(shorter.removesuffix("User: and then?"))


def test_two_runs_share_no_prefix() -> None:
    links = [{link for each in workload(mark, passage_count=4) for link in Prefix(each.request.system).chain} for mark in "ab"]
    assert links[0]
    assert not links[0] & links[1]


def test_hits_are_of_tokens_by_kind() -> None:
    answers = (
        _Answered(kind="rag", input_tokens=100, cached_tokens=50, first_s=0.1),
        _Answered(kind="chat", input_tokens=300, cached_tokens=300, first_s=0.3),
    )
    run = _Run(answers=answers, seconds=2.0, calls=(1, 1))
    assert (run.hit_rate(), run.hit_rate("rag"), run.hit_rate("chat")) == (0.875, 0.5, 1.0)
    table = _table({"round robin": [run], "affinity": [run]})
    assert table.rows[0][:4] == ("round robin", "87.5 %", "50.0 %", "100.0 %")
