"""`penstock bench generate`: streamed answers of a running generation service, at several loads or up to what it keeps."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from penstock.cli.benchmark.generating_calls import Caller, calling
from penstock.cli.benchmark.generating_figures import Figures, Recorder
from penstock.cli.benchmark.generating_file import read_asked
from penstock.cli.benchmark.generating_options import GenerationBench
from penstock.cli.benchmark.generating_prompts import Plan, PromptMaker, Shape, Workload, calibrated, make_workload
from penstock.cli.benchmark.generating_report import draw_figures, figures_table, found_said, notes, service_table
from penstock.cli.benchmark.generating_search import WINDOWS_NEEDED, Found, Promise, highest_rate
from penstock.cli.benchmark.generating_sizing import Demand, Sizing, explained, sized
from penstock.cli.benchmark.loops import Window, closed_loop, open_loop
from penstock.cli.benchmark.report import check_plot
from penstock.generation.v1 import generation_pb2 as pb

ANSWERS_WANTED: Final = 60
"""Answers of a window of the search: it is longer at low rates."""
ANSWERS_LEAST: Final = 20
"""With fewer a 95th percentile is the slowest answer: rates that give no more in the longest window are not tried."""
LENGTHENED_MAX: Final = 5.0


async def bench_generation(options: GenerationBench, console: Console) -> None:
    """Measures, prints tables, writes what was asked for."""
    if options.plot_file:
        check_plot(options.plot_file)  # Told now, and not when everything has been measured.
    async with calling(options.target, options.timeout_s) as caller:
        with console.status("prompts") as status:
            model = await caller.find_model(options.model)
            workload, shortened = await _workload(caller, model, options)
            bench = _Bench(caller=caller, workload=workload, options=options, status=status)
            load = await caller.load()
            report = await (bench.searched(load) if options.promise else bench.loads())
    _tell(console, model, options, report, shortened)
    if options.json_file:
        options.json_file.write_bytes(_json(model, options, report))
    if options.plot_file:
        found = report.found.rate if report.found else None
        draw_figures(options.plot_file, model.name, report.windows, options.promise, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Windows in the order of the table, and, where a rate was searched for, what came of it. `alone`: one at a time."""

    windows: tuple[Figures, ...]
    alone: Figures | None = None
    found: Found | None = None
    sizing: Sizing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """One service under one workload."""

    caller: Caller
    workload: Workload
    options: GenerationBench
    status: Status

    async def loads(self) -> Report:
        """A window at every concurrency or rate that was asked for."""
        window = Window(seconds=self.options.seconds, warmup_s=self.options.warmup_s)
        if self.options.rates:
            windows = [await self.at_rate(rate, number, window) for number, rate in enumerate(self.options.rates)]
        else:
            windows = [await self.in_flight(count, window) for count in self.options.concurrencies]
        return Report(windows=tuple(windows))

    async def searched(self, load: pb.GetLoadResponse) -> Report:
        """The highest rate that keeps the promise, from the rate at which one caller is answered."""
        promise, base = self.options.promise or Promise(), Window(seconds=self.options.seconds, warmup_s=self.options.warmup_s)
        for _ in range(WINDOWS_NEEDED):
            alone = await self.in_flight(1, base)
            if not promise.broken(alone):
                break
        else:
            return Report(windows=(), alone=alone)

        async def trial(rate: float, number: int) -> Figures:
            return await self.at_rate(rate, number, self._enough(base, rate, alone.latency_mean_s))

        least = ANSWERS_LEAST / (LENGTHENED_MAX * base.seconds)
        first = 1 / alone.latency_mean_s
        found = await highest_rate(trial, promise, first=first, trials_max=self.options.trials, least=least)
        windows = tuple(sorted((each.figures for each in found.tried), key=lambda each: each.setting))
        best = [each.figures for each in found.windows]
        size = sized(best, promise, self.options.demand, load.running_max) if best else None
        return Report(windows=windows, alone=alone, found=found, sizing=size)

    def _enough(self, base: Window, rate: float, latency_s: float) -> Window:
        """A window that sees some answers begin and end, and enough of them for a 95th percentile, within a bound."""
        wanted_s = max(base.seconds, ANSWERS_WANTED / rate, 4 * latency_s)
        return replace(base, seconds=min(wanted_s, LENGTHENED_MAX * base.seconds))

    async def in_flight(self, count: int, window: Window) -> Figures:
        self.status.update(f"{count} in flight, {window.seconds:g} s")
        recorder = self._recorder()
        measured = await closed_loop(recorder.call, in_flight=count, window=window, observer=recorder)
        return recorder.figures(measured, count, is_rate=False)

    async def at_rate(self, rate: float, number: int, window: Window) -> Figures:
        self.status.update(f"{rate:.3g} a second, {window.seconds:.0f} s, window {number + 1}")
        recorder, seed = self._recorder(), self.options.seed + number
        measured = await open_loop(recorder.call, rate=rate, window=window, seed=seed, observer=recorder)
        return recorder.figures(measured, rate, is_rate=True)

    def _recorder(self) -> Recorder:
        return Recorder(lambda number: self.caller.exchange(self.workload.message(number)))


async def _workload(caller: Caller, model: pb.Model, options: GenerationBench) -> tuple[Workload, int]:
    shape = Shape(model=model.name, raw=options.raw_prompt, min_tokens="min_tokens" in model.features, seed=options.seed)
    calibration = calibrated([await caller.count_tokens(probe) for probe in PromptMaker(shape).probes()])
    shared_words = round(options.shared_prefix_tokens / calibration.tokens_per_word)
    plan = Plan(
        prompt_tokens=options.prompt_tokens,
        output_tokens=options.output_tokens,
        asked=read_asked(options.file) if options.file else (),
        window=model.context_window,
        seed=options.seed,
    )
    return make_workload(plan, PromptMaker(replace(shape, shared_words=shared_words)), calibration)


def _tell(console: Console, model: pb.Model, options: GenerationBench, report: Report, shortened: int) -> None:
    rows = (*((report.alone,) if report.alone else ()), *report.windows)
    broken = [options.promise.broken(each) for each in rows] if options.promise else ()
    console.print(figures_table(_title(model, options), rows, broken))
    if table := service_table(rows):
        console.print(table)
    if shortened:
        console.print(f"{shortened} prompts were shortened to fit the model's window of {model.context_window} tokens.")
    for said in notes(rows):
        console.print(said, markup=False, style="dim")
    if options.promise:
        _tell_found(console, options.promise, options.demand, report)


def _tell_found(console: Console, promise: Promise, demand: Demand, report: Report) -> None:
    console.print()
    if report.found is None:
        console.print(f"Nothing keeps {promise}: one request at a time does not already.")
        return
    console.print(found_said(report.found, promise))
    if report.sizing is not None:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, title="Settings of a replica", title_justify="left")
        for setting, formula in explained(report.sizing, promise, demand):
            table.add_row(Text(setting), Text(formula, style="dim"))
        console.print(table)


def _title(model: pb.Model, options: GenerationBench) -> str:
    asked = f"as {options.file.name} has them" if options.file else f"{options.prompt_tokens} tokens"
    shared = f", {options.shared_prefix_tokens} of them shared" if options.shared_prefix_tokens else ""
    kind = ", ".join(part for part in (model.engine, model.precision) if part)
    answers = f"{options.output_tokens} where it does not say" if options.file else str(options.output_tokens)
    loop = "open loop" if options.rates or options.promise else "closed loop"
    return f"{model.name} ({kind}); prompts {asked}{shared}, answers {answers}; {loop}, {options.seconds:g} s"


def _json(model: pb.Model, options: GenerationBench, report: Report) -> bytes:
    kept: dict[str, Any] = {
        "model": {"name": model.name, "engine": model.engine, "precision": model.precision, "window": model.context_window},
        "options": asdict(options),
        "alone": report.alone and asdict(report.alone),
        "windows": [asdict(each) for each in report.windows],
    }
    if options.promise and report.found:
        tried = [{"rate": each.figures.setting, "broken": each.broken} for each in report.found.tried]
        found = {"rate": report.found.rate, "broken": report.found.broken, "is_confirmed": report.found.is_confirmed}
        kept |= {"found": found | {"tried": tried}, "sizing": report.sizing and asdict(report.sizing)}
    return orjson.dumps(kept, default=str, option=orjson.OPT_INDENT_2)
