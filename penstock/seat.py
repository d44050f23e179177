"""A worker process's place among those that serve one service together, and how it waits until they may all serve."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_VARIABLE: Final = "PENSTOCK_WORKER_SEAT"
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeat:
    """Worker `index` of `count`. `folder` is where they and their parent meet; None: the process serves alone."""

    index: int = 0
    count: int = 1
    folder: Path | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """The seat that the parent gave this process, if it has one."""
        told = os.environ.get(_VARIABLE)
        if told is None:
            return cls()
        index, count, folder = told.split("/", 2)
        return cls(index=int(index), count=int(count), folder=Path(f"/{folder}"))

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process that this is its seat."""
        return {_VARIABLE: f"{self.index}/{self.count}{self.folder}"}

    async def may_serve(self) -> None:
        """Tells the parent that this worker is ready, and waits until all were: one that comes later need not."""
        if self.folder is None:
            return
        self.ready_file.touch()
        while not self.serve_file.exists():  # noqa: ASYNC110  # Made by another process.
            await asyncio.sleep(_POLL_S)

    @property
    def ready_file(self) -> Path:
        """What a worker makes when it is ready."""
        return self._meeting / f"ready-{self.index}"

    @property
    def serve_file(self) -> Path:
        """What the parent makes when all are ready."""
        return self._meeting / "serve"

    def metrics_socket(self, index: int) -> Path:
        """Where a worker tells the others its metrics."""
        return self._meeting / f"metrics-{index}.sock"

    @property
    def _meeting(self) -> Path:
        assert self.folder is not None  # noqa: S101  # Nobody is met by who serves alone.
        return self.folder
