"""A run of random operations from its beginning to its end."""

import time
from pathlib import Path

from tests.retrieval_svc.random_operations.machine import Machine

RECALL_MIN = 0.95
_TOLD_EVERY = 5000


async def run(folder: Path, *, seed: int, operations: int) -> str:
    """Carries out the operations; what was done. Raises AssertionError with how to replay it."""
    replay = f"replay: python -m tests.retrieval_svc.random_operations --seed {seed} --operations {operations}"
    began = time.monotonic()
    print(f"{operations} operations, seed {seed}", flush=True)
    async with Machine(folder, seed).started() as machine:
        for number in range(operations):
            try:
                await machine.step()
            except Exception as error:
                message = f"operation {number} of seed {seed} ({machine.doing}): {error}\n{replay}"
                raise AssertionError(message) from error
            if number % _TOLD_EVERY == _TOLD_EVERY - 1:
                print(f"{number + 1} operations in {time.monotonic() - began:.0f} s", flush=True)
        each = {name: f"{count} of {1000 * machine.seconds[name] / count:.0f} ms" for name, count in machine.done.most_common()}
    recall = sum(machine.recalls) / len(machine.recalls)
    assert recall >= RECALL_MIN, f"recall is {recall:.4f} over {len(machine.recalls)} searches; {replay}"
    return f"{operations} operations of seed {seed} in {time.monotonic() - began:.0f} s, recall {recall:.4f}: {each}"
