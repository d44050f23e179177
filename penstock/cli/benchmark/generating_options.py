"""What `penstock bench generate` is told, and which of it goes together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.cli.benchmark.generating_lengths import Lengths, parse_lengths
from penstock.cli.benchmark.generating_search import Promise
from penstock.cli.benchmark.generating_sizing import Demand
from penstock.errors import InvalidArgument

LOADS_MAX: Final = 32
CONCURRENCY_MAX: Final = 4096
RATE_MAX: Final = 10_000.0
CONCURRENCIES: Final = (1, 2, 4, 8)
LIMITS: Final = "--ttft-p95-ms 500, --itl-p95-ms 50, or both"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationBench:
    """What to ask, and how. With `rates` the loops are open, else closed with so many callers each.

    With a `promise` the rates are searched for instead, in at most `trials` windows, and sizes for `demand` are said.
    """

    target: str
    prompt_tokens: Lengths
    output_tokens: Lengths
    model: str = ""
    file: Path | None = None
    shared_prefix_tokens: int = 0
    raw_prompt: bool = False
    concurrencies: Sequence[int] = CONCURRENCIES
    rates: Sequence[float] = ()
    promise: Promise | None = None
    demand: Demand = field(default_factory=Demand)
    trials: int = 16
    seconds: float = 20.0
    warmup_s: float = 5.0
    timeout_s: float = 300.0
    seed: int = 0
    json_file: Path | None = None
    plot_file: Path | None = None


def generation_bench(
    *,
    generation: str,
    concurrency: str,
    rate: str,
    find: bool,
    ttft_p95_ms: float | None,
    itl_p95_ms: float | None,
    expect_concurrency: int | None,
    expect_rate: float | None,
    think_s: float,
    headroom: float,
    prompt_tokens: str,
    output_tokens: str,
    **rest: Any,
) -> GenerationBench:
    """The command's options. Raises InvalidArgument with what to write instead."""
    promise = _promise(find, ttft_p95_ms, itl_p95_ms)
    if concurrency and rate:
        raise InvalidArgument("give --concurrency (closed loop) or --rate (open loop), and not both")
    if promise and (concurrency or rate):
        raise InvalidArgument("with a limit the rates are searched for: leave out --concurrency and --rate")
    if expect_concurrency is not None and expect_rate is not None:
        raise InvalidArgument("give --expect-concurrency or --expect-rate, and not both")
    if not promise and (expect_concurrency is not None or expect_rate is not None):
        raise InvalidArgument(f"sizing needs the limits that a replica must keep: add {LIMITS}")
    return GenerationBench(
        target=generation,
        prompt_tokens=parse_lengths(prompt_tokens, "--prompt-tokens"),
        output_tokens=parse_lengths(output_tokens, "--output-tokens"),
        concurrencies=_whole(_listed(concurrency, "--concurrency", CONCURRENCY_MAX)) or CONCURRENCIES,
        rates=_listed(rate, "--rate", RATE_MAX),
        promise=promise,
        demand=Demand(users=expect_concurrency, rate=expect_rate, think_s=think_s, headroom=headroom),
        **rest,
    )


def _promise(find: bool, ttft_p95_ms: float | None, itl_p95_ms: float | None) -> Promise | None:
    if ttft_p95_ms is None and itl_p95_ms is None:
        if find:
            raise InvalidArgument(f"--find needs the limits to keep: add {LIMITS}")
        return None
    return Promise(ttft_p95_ms=ttft_p95_ms, itl_p95_ms=itl_p95_ms)


def _listed(text: str, option: str, most: float) -> tuple[float, ...]:
    """The numbers of "0.5,1,2", in their order."""
    try:
        numbers = tuple(float(each) for each in text.split(",") if each.strip())
    except ValueError as error:
        raise InvalidArgument(f"{option} {text}: not a list of numbers such as 1,2,4") from error
    if not all(0 < number <= most for number in numbers):  # False for NaN, as it must be.
        raise InvalidArgument(f"{option} {text}: each number must be above 0 and at most {most:g}")
    if len(numbers) > LOADS_MAX:
        raise InvalidArgument(f"{option} has {len(numbers)} numbers, at most {LOADS_MAX} are taken")
    return numbers


def _whole(numbers: Sequence[float]) -> tuple[int, ...]:
    if fraction := next((each for each in numbers if not math.isclose(each, round(each))), None):
        raise InvalidArgument(f"--concurrency has {fraction:g}, must be whole numbers such as 1,2,4")
    return tuple(round(each) for each in numbers)
