"""Random operations on a real process against an exact reference; any run can be replayed from its seed.

    PENSTOCK_RANDOM_OPERATIONS=100000 python -m pytest -s --basetemp=/dev/shm/r tests/retrieval_svc/test_random_operations.py

PENSTOCK_RANDOM_SEED is a seed to replay; without one the short run has always the same, and a longer one a new one each time.
"""

import os
import random
import time
from pathlib import Path

import pytest

from tests.retrieval_svc.random_operations.machine import Machine

SHORT = 1500
OPERATIONS = int(os.environ.get("PENSTOCK_RANDOM_OPERATIONS", SHORT))
SEED = int(os.environ.get("PENSTOCK_RANDOM_SEED", 31 if OPERATIONS <= SHORT else random.SystemRandom().randrange(10**6)))
RECALL_MIN = 0.95
PLACE = Path(__file__).relative_to(Path(__file__).parents[2])


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(max(300, OPERATIONS))
async def test_whatever_is_done_in_any_order_every_answer_is_that_of_the_reference(tmp_path: Path) -> None:
    replay = f"PENSTOCK_RANDOM_SEED={SEED} PENSTOCK_RANDOM_OPERATIONS={OPERATIONS} python -m pytest -s {PLACE}"
    print(f"{OPERATIONS} operations, seed {SEED}")
    began = time.monotonic()
    async with Machine(tmp_path, SEED).started() as machine:
        for number in range(OPERATIONS):
            try:
                await machine.step()
            except Exception as error:
                raise AssertionError(
                    f"operation {number} of seed {SEED} ({machine.doing}): {error}\nreplay: {replay}"
                ) from error
            if number % 5000 == 4999:
                print(f"{number + 1} operations in {time.monotonic() - began:.0f} s")
        each = {name: f"{count} of {1000 * machine.seconds[name] / count:.0f} ms" for name, count in machine.done.most_common()}
        print(f"{time.monotonic() - began:.0f} s: {each}")
    recall = sum(machine.recalls) / len(machine.recalls)
    assert recall >= RECALL_MIN, f"recall is {recall:.4f} over {len(machine.recalls)} searches; replay: {replay}"
