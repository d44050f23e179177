"""The picture of a trace."""

import io

from rich.console import Console

from penstock.cli.otlp_receiver import Span
from penstock.cli.trace_tree import trace_tree


def span(name: str, span_id: str, parent_id: str, start_ms: int, end_ms: int, **other: object) -> Span:
    values = {"kind": "INTERNAL", "service": "gateway", "attributes": {}, "failed": False, "status_message": "", "events": ()}
    return Span(
        trace_id="ab" * 16, span_id=span_id, parent_id=parent_id, name=name,
        start_ns=start_ms * 10**6, end_ns=end_ms * 10**6, **(values | other),
    )  # fmt: skip


def drawn(*spans: Span) -> list[str]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(trace_tree(spans))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_children_stand_under_their_parents_with_their_process_and_their_time() -> None:
    lines = drawn(
        span("request", "1", "from the caller", 0, 100),
        span("late", "3", "1", 50, 100, service="generation"),
        span("early", "2", "1", 0, 50, service="retrieval"),
        span("inner", "4", "2", 10, 20, service="retrieval", attributes={"penstock.hit.count": 3}),
    )
    assert lines[0] == f"trace {'ab' * 16}, 100.0 ms"
    names = ["└ request", "├ early", "│ └ inner [3 hits]", "└ late"]
    assert all(line.strip().startswith(name) for line, name in zip(lines[1:], names, strict=True))
    assert "retrieval" in lines[2]
    assert lines[2].endswith("50.0 ms ███████·······")
    assert lines[4].endswith("50.0 ms ·······███████")


def test_a_trace_of_one_instant_is_drawn_too() -> None:
    assert "0.0 ms █" in drawn(span("x", "1", "", 5, 5))[1]
