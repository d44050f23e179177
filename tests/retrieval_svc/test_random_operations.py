"""Random operations on a real process against an exact reference: a short run, always the same unless it is told otherwise.

The long run is `python -m tests.retrieval_svc.random_operations --operations 100000`.
"""

import os
from pathlib import Path

import pytest

from tests.retrieval_svc.random_operations.running import run

OPERATIONS = int(os.environ.get("PENSTOCK_RANDOM_OPERATIONS", "1500"))
SEED = int(os.environ.get("PENSTOCK_RANDOM_SEED", "31"))


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(max(600, OPERATIONS))
async def test_whatever_is_done_in_any_order_every_answer_is_that_of_the_reference(tmp_path: Path) -> None:
    print(await run(tmp_path, seed=SEED, operations=OPERATIONS))
