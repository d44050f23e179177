import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.closed_loop import Load, Reply, drive, percentile
from bench.meter import Meter


class Echo:
    """A caller that answers itself: with a fault to b"bad", with an event to everything else."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.open = False
        self.most_at_once = 0
        self._at_once = 0

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:
        self.open = True
        yield
        self.open = False

    async def call(self, slot: int, payload: bytes) -> Reply:
        assert self.open
        self.asked.append(payload)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.001)
        self._at_once -= 1
        return Reply(fault="BAD") if payload == b"bad" else Reply(events=1, output_tokens=7)


async def test_without_a_length_every_payload_is_sent_once() -> None:
    caller, payloads = Echo(), [b"%d" % number for number in range(20)]
    sample = await drive(caller, Load(in_flight=4, payloads=payloads), Meter({}))
    assert sorted(caller.asked) == sorted(payloads)
    assert caller.most_at_once == 4
    assert (sample.requests, sample.events, sample.output_tokens) == (20, 20, 140)
    assert not caller.open


async def test_with_a_length_payloads_are_sent_over_and_over_and_the_warm_up_is_not_counted() -> None:
    caller = Echo()
    sample = await drive(caller, Load(in_flight=2, payloads=[b"a", b"b"], seconds=0.1, warmup_s=0.05), Meter({}))
    assert 2 < sample.requests < len(caller.asked)
    assert sample.p50_ms >= 1
    assert sample.seconds >= 0.1
    assert "client" in sample.cpu_s


async def test_a_fault_is_counted_by_its_name_and_not_as_an_answer() -> None:
    sample = await drive(Echo(), Load(in_flight=1, payloads=[b"good", b"bad", b"bad"]), Meter({}))
    assert (sample.requests, sample.errors, sample.faults) == (1, 2, {"BAD": 2})


@pytest.mark.parametrize(("values", "percent", "expected"), [([], 50, 0), ([3.0], 99, 3.0), ([1.0, 2.0, 3.0], 50, 2.0)])
def test_percentiles_are_defined_for_few_values_too(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == expected
