"""Sound flows with something in them changed: each still runs, or is refused with its faults; nothing else comes out of it."""

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.compiler import RunLimits
from gateway.flow_model import Bounds
from gateway.validation import examine
from penstock.errors import PenstockError
from tests.gateway.fakes import World

ROOT = Path(__file__).parents[2]
GUIDE = re.findall(r"```json\n(.*?)```", (ROOT / "docs/flows.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples/flows").rglob("*.json"))]
FLOWS: list[Any] = [json.loads(text) for text in (*GUIDE, *EXAMPLES)]
LIMITS = RunLimits(deadline_s=5, bounds=Bounds(model_calls=40, tokens=10_000, retrievals=40))
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(2**63), st.floats(allow_nan=False), st.text(max_size=12),
    st.just([]), st.just({}), st.just("{"), st.just("value"), st.just("loop"), st.just([[[]]]),
    st.just("x.map(y, y.map(z, z))"),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in steps:
        yield (*path, step)
        yield from places(child, (*path, step))


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A flow with one to three of its values replaced, removed, doubled, or put in the place of another."""
    flow = copy.deepcopy(draw(st.sampled_from(FLOWS)))
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(flow))
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        parent = flow
        for step in way:
            parent = parent[step]
        match draw(st.sampled_from(("replace", "remove", "double", "swap"))):
            case "replace":
                parent[last] = draw(ODD)
            case "remove":
                del parent[last]
            case "double" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case _:
                other = flow
                for step in draw(st.sampled_from(ways)):
                    if not isinstance(other, dict | list):
                        break
                    with suppress(LookupError, TypeError):
                        other = other[step]
                parent[last] = copy.deepcopy(other) if len(json.dumps(other)) < 4000 else None
    return flow


@given(mutated())
@settings(deadline=None, max_examples=200)
def test_a_changed_flow_runs_or_is_refused_with_its_faults(value: Any) -> None:
    flow, faults = examine(json.dumps(value))
    assert (flow is None) == bool(faults)
    if flow is None:
        return
    given_inputs = {each.name: {"text": "what?", "number": 1, "boolean": True}.get(each.type.value, []) for each in flow.inputs}
    with suppress(PenstockError):
        asyncio.run(asyncio.wait_for(World(limits=LIMITS).compiler.compile(flow).run(given_inputs), 20))
