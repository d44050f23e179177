"""The langflow part's tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bench.closed_loop import Sample
from bench.report import Table, middle, number, ratio

if TYPE_CHECKING:
    from bench.langflow_part import Asked, Server

_LANGFLOW: Final = "LangFlow"
_ELSEWHERE: Final = frozenset({"fake", "client"})


def langflow_tables(ways: Sequence["Asked"], running: Sequence["Server"], absent: Sequence[str]) -> tuple[Table, ...]:
    """Both of them."""
    return (_side_by_side(ways, absent), _beginnings(running))


def served_ms(sample: Sample) -> float:
    """CPU milliseconds a run of everything that serves: all processes but the client and the model."""
    return sample.cpu_ms(*(group for group in sample.cpu_s if group not in _ELSEWHERE))


def _side_by_side(ways: Sequence["Asked"], absent: Sequence[str]) -> Table:
    langflow = next((way for way in ways if way.name == _LANGFLOW), None)
    rows = [
        _row(way, in_flight, langflow) for in_flight in sorted({each for way in ways for each in way.samples}) for way in ways
    ]
    told = "".join(f" {each}." for each in absent)
    return Table(
        title="ChatInput -> Prompt -> Model -> ChatOutput, over a model that answers at once",
        note="CPU in ms a run. server: all its processes; Penstock's are the gateway and the generation service. LangFlow to "
        f"this: LangFlow's CPU a run in units of this one's, the median of the rounds' own ratios. other: cores busy "
        f"elsewhere.{told}",
        columns=(
            "served by", "in flight", "runs", "runs/s", "p50 ms", "p99 ms", "errors", "CPU server", "CPU gateway",
            "CPU generation", "CPU model", "LangFlow to this", "other",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _row(way: "Asked", in_flight: int, langflow: "Asked | None") -> tuple[str, ...]:
    samples = way.samples[in_flight]
    own = [
        number(middle(samples, lambda each, group=group: each.cpu_ms(group))) if group in samples[0].cpu_s else "-"  # type: ignore[misc]
        for group in ("gateway", "generation")
    ]
    times = "-" if langflow is None else f"{ratio(langflow.samples[in_flight], samples, served_ms):,.0f} x"
    return (
        way.name,
        str(in_flight),
        str(sum(each.requests for each in samples)),
        number(middle(samples, lambda each: each.rate)),
        number(middle(samples, lambda each: each.p50_ms)),
        number(middle(samples, lambda each: each.p99_ms)),
        str(sum(each.errors for each in samples)),
        number(middle(samples, served_ms)),
        *own,
        number(middle(samples, lambda each: each.cpu_ms("fake"))),
        times,
        number(middle(samples, lambda each: each.other_cores), 2),
    )


def _beginnings(running: Sequence["Server"]) -> Table:
    return Table(
        title="From the start to the first answer, and memory",
        note="healthy: from its start until the server says that it serves; for Penstock, both services, started together. "
        "Memory in MiB of all its processes, before the load and after it; PSS counts shared pages once.",
        columns=("server", "healthy s", "first answer s", "together s", "RSS before", "RSS after", "PSS before", "PSS after"),
        rows=tuple(
            (
                each.name,
                number(each.ready_s),
                number(each.first_s),
                number(each.ready_s + each.first_s),
                *(number(memory["rss_mib"]) for memory in each.memory),
                *(number(memory["pss_mib"]) for memory in each.memory),
            )
            for each in running
        ),
    )
