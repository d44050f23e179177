"""Part "events": what one more token costs in a stream of which none are gathered: a token every few milliseconds, and a burst.

The services meet on a link. The same flow is asked for a short and for a long answer; the difference, by what the long one has
more, is the cost of a token and of an event. In a burst tokens come faster than they are read, and one event has several.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.closed_loop import Sample
from bench.fake_openai import MODEL
from bench.flow_part import FLOW
from bench.plan import Plan
from bench.report import PartResult, Table, middle, number, raw
from bench.rounds import Tell
from penstock.cli.local import LocalStack
from penstock.clients import Penstock

NAME: Final = "events"
SHORT: Final = 8
LONG: Final = 208
INTERVALS_MS: Final = (4, 0)
IN_FLIGHT: Final = (1, 16)
_QUESTION: Final = "How many tackles did Luke Kuechly register?"
_WAYS: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    "Penstock": ("penstock", "/v1/flows/{flow}:stream", {"inputs": {"question": _QUESTION}}),
    "OpenAI's API": (
        "openai",
        "/v1/chat/completions",
        {"model": "{flow}", "stream": True, "messages": [{"role": "user", "content": _QUESTION}]},
    ),
}
Row = tuple[int, str, int]
"""Milliseconds between tokens, way, streams in flight."""
Found = dict[Row, dict[int, list[Sample]]]


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    found: Found = {}
    for interval_ms in INTERVALS_MS:
        place = folder / str(interval_ms)
        async with processes.fake_openai(place, "--interval-ms", str(interval_ms)) as (fake, fake_pid):
            engine = {
                "PENSTOCK_GENERATION_ENGINE": "openai",
                "PENSTOCK_GENERATION_OPENAI_BASE_URL": f"http://{fake}/v1",
                "PENSTOCK_GENERATION_MODEL": MODEL,
                "PENSTOCK_GENERATION_COALESCE_TOKENS_MAX": "1",
                "PENSTOCK_GATEWAY_GENERATION_LINKS": "true",
            }
            async with (
                processes.services(place, ("generation", "gateway"), engine) as stack,
                processes.worker("load", place) as client,
            ):
                async with Penstock(stack.services["gateway"].grpc) as gateway:
                    for tokens in (SHORT, LONG):
                        await gateway.create_flow(f"tokens-{tokens}", json.dumps(_flow(tokens)), replace=True)
                await _rounds(found, plan, tell, stack, client, interval_ms, fake_pid)
    samples = [
        each
        for (interval_ms, way, in_flight), by_length in found.items()
        for tokens, made in by_length.items()
        for each in raw(made, interval_ms=interval_ms, path=way, in_flight=in_flight, tokens=tokens)
    ]
    return PartResult(name=NAME, tables=(events_table(found),), raw=tuple(samples))


async def _rounds(  # noqa: PLR0917  # What one phase has.
    found: Found, plan: Plan, tell: Tell, stack: LocalStack, client: processes.Worker, interval_ms: int, fake_pid: int
) -> None:
    pids = {**processes.pids(stack), "fake": [fake_pid]}
    for round_number in range(plan.rounds):
        for way in _WAYS:
            for in_flight in IN_FLIGHT:
                tell(f"events: every {interval_ms} ms, round {round_number + 1} of {plan.rounds}, {way}, {in_flight} in flight")
                for tokens in (SHORT, LONG):
                    options, body = _asked(way, stack.services["gateway"].http, f"tokens-{tokens}")
                    # Long enough for some whole answers of the long kind.
                    seconds = max(plan.seconds, 3 * interval_ms * tokens / 1000)
                    load = processes.load([body], in_flight=in_flight, seconds=seconds, warmup_s=plan.warmup_s)
                    sample = await client.sample(caller="http", options=options, load=load, pids=pids)
                    found.setdefault((interval_ms, way, in_flight), {}).setdefault(tokens, []).append(sample)


def events_table(found: Mapping[Row, Mapping[int, Sequence[Sample]]]) -> Table:
    """A row a way, a pace and a number of streams in flight."""
    return Table(
        title=f"A token's own cost in a stream: answers of {LONG} and of {SHORT} tokens, nothing gathered, over a link",
        note="CPU in microseconds: what the long answer takes more, by the tokens and by the events of text that it has more. "
        "every: milliseconds between the model's tokens; 0: as fast as they are read.",
        columns=(
            "path", "every ms", "in flight", "events an answer", "errors", "CPU gateway/token", "CPU gateway/event",
            "CPU generation/token", "CPU generation/event", "CPU gateway, short answer", "other",
        ),
        rows=tuple(_row(row, by_length[SHORT], by_length[LONG]) for row, by_length in found.items()),
    )  # fmt: skip


def _row(row: Row, short: Sequence[Sample], long: Sequence[Sample]) -> tuple[str, ...]:
    interval_ms, way, in_flight = row
    events = middle(long, _events) - middle(short, _events)
    costs = []
    for group in ("gateway", "generation"):
        more_us = 1000 * (middle(long, lambda each: each.cpu_ms(group)) - middle(short, lambda each: each.cpu_ms(group)))  # noqa: B023  # Called at once.
        costs += [number(more_us / (LONG - SHORT)), number(more_us / events) if events > 0 else "-"]
    return (
        way,
        str(interval_ms),
        str(in_flight),
        number(middle(long, _events)),
        str(sum(each.errors for each in (*short, *long))),
        *costs,
        number(1000 * middle(short, lambda each: each.cpu_ms("gateway"))),
        number(middle(long, lambda each: each.other_cores), 2),
    )


def _events(sample: Sample) -> float:
    return sample.events / max(1, sample.requests)


def _flow(tokens: int) -> dict[str, Any]:
    flow: dict[str, Any] = json.loads(json.dumps(FLOW))
    flow["nodes"][2]["params"]["max_tokens"] = tokens
    return flow


def _asked(way: str, target: str, flow: str) -> tuple[dict[str, Any], bytes]:
    dialect, path, body = _WAYS[way]
    options = {"target": target, "path": path.replace("{flow}", flow), "dialect": dialect}
    return options, orjson.dumps(body).replace(b"{flow}", flow.encode())
