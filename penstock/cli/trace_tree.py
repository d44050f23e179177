"""A trace as a tree in the terminal, with a bar that shows when each span ran."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from penstock import semconv
from penstock.cli.otlp_receiver import Span

BAR_WIDTH: Final = 14
NAME_WIDTH: Final = 46
COLOURS: Final = {"gateway": "cyan", "retrieval": "green", "generation": "magenta"}
SHORTER: Final = (("penstock.flow.v1.", ""), ("penstock.retrieval.v1.", ""), ("penstock.generation.v1.", ""))
SHOWN: Final = {semconv.PENSTOCK_HIT_COUNT: "hits", semconv.GEN_AI_USAGE_OUTPUT_TOKENS: "tokens"}


def trace_tree(spans: Sequence[Span]) -> Group:
    """One trace's spans: what ran under what, in which process, when and for how long.

    A span whose parent is not among them is a root.
    """
    begin_ns = min(span.start_ns for span in spans)
    whole_ns = max(1, max(span.end_ns for span in spans) - begin_ns)
    title = f"trace {spans[0].trace_id}, {whole_ns / 1e6:.1f} ms"
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    table.add_column(no_wrap=True, min_width=10)
    table.add_column(no_wrap=True, min_width=11, justify="right")
    table.add_column(no_wrap=True, min_width=BAR_WIDTH)
    for prefix, span in _ordered(spans):
        colour = COLOURS.get(span.service, "white")
        name = Text.assemble((prefix, "dim"), (_name(span), "red" if span.failed else ""))
        bar = Text(_bar(span, begin_ns, whole_ns), colour)
        table.add_row(name, Text(span.service, colour), f"{span.duration_ms:.1f} ms", bar)
    return Group(Text(title, "bold"), table)  # A table's own title would be folded to its width.


def _ordered(spans: Sequence[Span]) -> Iterator[tuple[str, Span]]:
    """Each span after its parent, with the lines that lead to it."""
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda each: each.start_ns):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def below(parent_id: str, lines: str) -> Iterator[tuple[str, Span]]:
        siblings = children.get(parent_id, [])
        for span in siblings:
            is_last = span is siblings[-1]
            yield lines + ("└ " if is_last else "├ "), span
            yield from below(span.span_id, lines + ("  " if is_last else "│ "))

    yield from below("", "")


def _name(span: Span) -> str:
    name = span.name
    for long, short in SHORTER:
        name = name.replace(long, short)
    facts = ", ".join(f"{span.attributes[key]} {word}" for key, word in SHOWN.items() if key in span.attributes)
    kind = f" ({span.kind.lower()})" if span.kind in {"CLIENT", "SERVER"} and "/" in name else ""
    return f"{name}{kind}" + (f" [{facts}]" if facts else "")


def _bar(span: Span, begin_ns: int, whole_ns: int) -> str:
    first = min(int((span.start_ns - begin_ns) / whole_ns * BAR_WIDTH), BAR_WIDTH - 1)
    last = max(first + 1, min(BAR_WIDTH, round((span.end_ns - begin_ns) / whole_ns * BAR_WIDTH)))
    return ("·" * first + "█" * (last - first)).ljust(BAR_WIDTH, "·")
