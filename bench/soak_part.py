"""Part "soak": very many runs of one flow, one after the other and many at once, and the memory of the services meanwhile."""

import json
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.fake_openai import MODEL
from bench.flow_part import FLOW
from bench.meter import memory_of, pss_mib
from bench.plan import Plan
from bench.report import PartResult, Table, number
from bench.rounds import Tell
from penstock.clients import Penstock

NAME: Final = "soak"
IN_FLIGHT: Final = 32
STEPS: Final = 10
_BODY: Final = orjson.dumps({"inputs": {"question": "How many tackles did Luke Kuechly register?"}})


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part: `plan.soak_runs` in STEPS, every tenth of which is streamed."""
    each, noted = plan.soak_runs // STEPS, []
    async with processes.fake_openai(folder, "--interval-ms", "0") as (fake, fake_pid):
        engine = {
            "PENSTOCK_GENERATION_ENGINE": "openai",
            "PENSTOCK_GENERATION_OPENAI_BASE_URL": f"http://{fake}/v1",
            "PENSTOCK_GENERATION_MODEL": MODEL,
            "PENSTOCK_GATEWAY_GENERATION_LINKS": "true",
        }
        async with (
            processes.services(folder / "stack", ("generation", "gateway"), engine) as stack,
            processes.worker("load", folder) as client,
        ):
            async with Penstock(stack.services["gateway"].grpc) as gateway:
                await gateway.create_flow(NAME, json.dumps(FLOW), replace=True)
            servers = {name: running.process.pid for name, running in stack.services.items()}
            pids = {**processes.pids(stack), "fake": [fake_pid]}
            noted.append(_noted(0, servers, {}))
            for step in range(STEPS):
                tell(f"soak: {step * each:,} of {plan.soak_runs:,} runs")
                told: dict[str, Any] = {"errors": 0, "cpu_s": 0.0, "seconds": 0.0}
                for verb, count in (("run", each - each // 10), ("stream", each // 10)):
                    options = {
                        "target": stack.services["gateway"].http,
                        "path": f"/v1/flows/{NAME}:{verb}",
                        "dialect": "penstock",
                    }
                    load = processes.load([_BODY] * count, in_flight=IN_FLIGHT)
                    sample = await client.sample(caller="http", options=options, load=load, pids=pids)
                    told["errors"] += sample.errors
                    told["seconds"] += sample.seconds
                    told["cpu_s"] += sample.cpu_s["gateway"] + sample.cpu_s["generation"]
                noted.append(_noted((step + 1) * each, servers, told))
    return PartResult(name=NAME, tables=(_table(noted, servers),), raw=tuple(noted))


def _noted(runs: int, servers: dict[str, int], told: dict[str, Any]) -> dict[str, Any]:
    memory = {
        name: {"rss_mib": (found := memory_of(pid)).rss_mib, "anonymous_mib": found.anonymous_mib, "pss_mib": pss_mib(pid)}
        for name, pid in servers.items()
    }
    return {"runs": runs, "memory": memory, **told}


def _table(noted: list[dict[str, Any]], servers: dict[str, int]) -> Table:
    kinds = ("rss_mib", "pss_mib", "anonymous_mib")
    rows = [
        (
            f"{each['runs']:,}",
            *(number(each["memory"][name][kind], 4) for name in servers for kind in kinds),
            str(each.get("errors", "-")),
            number(each["runs"] and (noted[1]["runs"] / each["seconds"])) if each["runs"] else "-",
        )
        for each in noted
    ]
    return Table(
        title=f"Memory over many runs (MiB), {IN_FLIGHT} in flight, nine in ten unary and the tenth streamed",
        note="anonymous is what no file holds. Errors and runs/s are of the runs since the row before.",
        columns=("runs", *(f"{name} {kind}" for name in servers for kind in ("RSS", "PSS", "anonymous")), "errors", "runs/s"),
        rows=tuple(rows),
    )
