"""Part overload: what is left of the service's best throughput when three times as much arrives, how fast the rest is refused,
and whether its memory stays what it was.

Best is a closed loop with a few callers more than there are slots, so that some always wait. Then requests come at random
moments, three times as many a second as were answered. Both by `penstock bench generate`, against vLLM (make vllm).
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from bench import processes, vllm_environment
from bench.meter import memory_of
from bench.plan import Plan
from bench.report import PartResult, Table, number, times
from bench.rounds import Tell

NAME: Final = "overload"
RUNNING_MAX: Final = 8
WAITING_MAX: Final = 16
CALLERS: Final = RUNNING_MAX + 4
TIMES_MORE: Final = 3
WINDOW_TOKENS: Final = 1024
PROMPT_TOKENS: Final = 128
_SECONDS_OF_PLAN: Final = 20
"""A window is so many times as long as those of the other parts: an answer takes seconds here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """One window: what `penstock bench generate` says of it, and the service's own process before and after, in MiB."""

    load: str
    figures: Mapping[str, Any]
    memory_mib: tuple[float, float]


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part. Raises FailedPrecondition where there is no vLLM."""
    tell(f"{NAME}: loading the model")
    model = await vllm_environment.loaded(plan, folder, sequences_max=RUNNING_MAX, window=WINDOW_TOKENS)
    settings = model.settings(vllm_prefix_caching=False, waiting_max=WAITING_MAX)
    found: list[_Window] = []
    async with vllm_environment.service(folder, settings) as service:
        await _window("warm", ("--concurrency", str(CALLERS)), service, plan, folder)
        for round_number in range(plan.rounds):
            tell(f"{NAME}: round {round_number + 1} of {plan.rounds}, as much as it takes")
            best = await _window("best", ("--concurrency", str(CALLERS)), service, plan, folder)
            rate = TIMES_MORE * best.figures["requests_per_s"]
            tell(f"{NAME}: round {round_number + 1} of {plan.rounds}, {rate:.1f} a second")
            found += [best, await _window("three times", ("--rate", f"{rate:.3f}"), service, plan, folder)]
    raw = [{"load": each.load, "figures": each.figures, "memory_mib": each.memory_mib} for each in found]
    return PartResult(name=NAME, tables=(_table(found),), raw=tuple(raw))


async def _window(load: str, how: Sequence[str], service: processes.Running, plan: Plan, folder: Path) -> _Window:
    kept = folder / "window.json"
    seconds = max(2.0, _SECONDS_OF_PLAN * plan.seconds)
    command = [
        sys.executable, "-c", "from penstock.cli import main; main()", "bench", "generate", "--generation", service.address,
        "--prompt-tokens", str(PROMPT_TOKENS), "--output-tokens", str(plan.answer_tokens), "--seconds", f"{seconds:g}",
        "--json", str(kept), *how,
    ]  # fmt: skip
    before = memory_of(service.pid, alone=True).anonymous_mib
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    if process.returncode:
        raise processes.WorkerFailed(said.decode(errors="replace"))
    (figures,) = orjson.loads(kept.read_bytes())["windows"]
    return _Window(load=load, figures=figures, memory_mib=(before, memory_of(service.pid, alone=True).anonymous_mib))


def _table(found: Sequence[_Window]) -> Table:
    by_load = {load: [each for each in found if each.load == load] for load in ("best", "three times")}
    best = [each.figures["output_tokens_per_s"] for each in by_load["best"]]

    def middle(windows: Sequence[_Window], *path: str) -> float:
        return median(_at(each.figures, path) for each in windows)

    rows = tuple(
        (
            load,
            number(middle(windows, "asked_per_s")),
            number(middle(windows, "requests_per_s")),
            number(middle(windows, "output_tokens_per_s")),
            times(median(each.figures["output_tokens_per_s"] / of for each, of in zip(windows, best, strict=True))),
            number(middle(windows, "ttft_ms", "p95")),
            str(sum(each.figures["refused"] for each in windows)),
            number(middle(windows, "refused_ms", "p50")),
            number(middle(windows, "refused_ms", "p99")),
            str(sum(sum(each.figures["faults"].values()) for each in windows)),
            f"{windows[0].memory_mib[0]:.1f} to {windows[-1].memory_mib[1]:.1f}",
        )
        for load, windows in by_load.items()
    )
    return Table(
        title=f"{TIMES_MORE} times the load that it can serve ({RUNNING_MAX} slots, {WAITING_MAX} places, vLLM's CPU build)",
        note="memory: what the service's own process holds that no file does, MiB, before the first window and after the last.",
        columns=(
            "load", "offered/s", "answered/s", "tokens/s", "to best", "first p95 ms", "refused", "refused p50 ms",
            "refused p99 ms", "other faults", "memory MiB",
        ),
        rows=rows,
    )  # fmt: skip


def _at(figures: Mapping[str, Any], path: Sequence[str]) -> float:
    value: Any = figures
    for name in path:
        value = value.get(name, 0.0)
    return float(value)
