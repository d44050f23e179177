"""A trace as a tree in the terminal, with a bar that shows when each span ran."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text
from rich.tree import Tree

from penstock import semconv
from penstock.cli.otlp_receiver import Span

BAR_WIDTH: Final = 32
COLOURS: Final = {"gateway": "cyan", "retrieval": "green", "generation": "magenta"}
SHOWN: Final = (
    semconv.PENSTOCK_NODE_TYPE,
    semconv.GEN_AI_DATA_SOURCE_ID,
    semconv.PENSTOCK_HIT_COUNT,
    semconv.GEN_AI_USAGE_INPUT_TOKENS,
    semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
)


def trace_tree(spans: Sequence[Span]) -> Tree:
    """The tree of one trace's spans. A span whose parent is not among them is a root."""
    known = {span.span_id for span in spans}
    begin = min(span.start_ns for span in spans)
    whole_ns = max(1, max(span.end_ns for span in spans) - begin)
    tree = Tree(f"[bold]trace {spans[0].trace_id}[/bold]  {whole_ns / 1e6:.1f} ms", guide_style="dim")
    branches = {"": tree}
    for span in sorted(spans, key=lambda each: each.start_ns):
        parent = branches.get(span.parent_id if span.parent_id in known else "", tree)
        branches[span.span_id] = parent.add(_line(span, begin, whole_ns))
    return tree


def _line(span: Span, begin_ns: int, whole_ns: int) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(_bar(span, begin_ns, whole_ns), COLOURS.get(span.service, "white"))
    line.append(f" {span.duration_ms:8.1f} ms  ", "bold")
    line.append(f"{span.service:<10} ", COLOURS.get(span.service, "white"))
    line.append(span.name, "red" if span.failed else "")
    facts = " ".join(f"{key.rpartition('.')[2]}={span.attributes[key]}" for key in SHOWN if key in span.attributes)
    line.append(f"  {facts}" if facts else "", "dim")
    return line


def _bar(span: Span, begin_ns: int, whole_ns: int) -> str:
    first = int((span.start_ns - begin_ns) / whole_ns * BAR_WIDTH)
    last = max(first + 1, round((span.end_ns - begin_ns) / whole_ns * BAR_WIDTH))
    first = min(first, BAR_WIDTH - 1)
    return " " * first + "█" * (min(last, BAR_WIDTH) - first) + " " * max(0, BAR_WIDTH - last)
