"""A long run of random operations, or one replayed: python -m tests.retrieval_svc.random_operations --operations 100000

It works in memory (/dev/shm) where there is such a folder, for it waits for the disk tens of thousands of times.
"""

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from tests.retrieval_svc.random_operations.running import run

SHARED_MEMORY = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, default=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="random-operations-", dir=asked.folder) as folder:
        print(asyncio.run(run(Path(folder), seed=asked.seed, operations=asked.operations)))


if __name__ == "__main__":
    main()
