"""Steps on Ray, by Ray Data. The only module that imports it.

Items are written as files into a folder, which Ray reads and hands to actors that have the step open; what they give comes back
through its object store as fast as it is taken. With RAY_ADDRESS it is a cluster's Ray, else one of its own that is started for
the build and ended with it. On a cluster, the service's data folder has to be one that every machine sees.
"""

import logging
import os
import pickle
import shutil
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.errors import FailedPrecondition, PenstockError
from retrieval_svc.bulk.executing import Item, Result, Step, StepFailed

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Nothing is sent anywhere.
try:
    import ray
    import ray.data
except ImportError as error:
    raise FailedPrecondition("Ray is not installed: pip install 'penstock[ray]', or leave --executor local") from error

_OBJECT_STORE_BYTES: Final = 512 * 2**20


class RayExecutor:
    """Implements the Executor port with `workers` actors of `threads` cores each."""

    def __init__(self, workers: int, *, threads: int, folder: Path) -> None:
        self._workers = workers
        self._threads = threads
        self._folder = folder / "items"
        self._begun = False

    def map(self, step: Step[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """As the port has it, but that all items are taken before the first is begun."""
        self._begin()
        with _spooled(items, self._folder) as paths:
            waiting: dict[int, Any] = {}
            number = 0
            for came, outcome in self._outcomes(step, paths):
                if isinstance(outcome, BaseException):
                    raise outcome
                waiting[came] = outcome
                while number in waiting:
                    yield waiting.pop(number)
                    number += 1

    def stop(self) -> None:
        """As the port has it."""
        self.close()

    def close(self) -> None:
        """As the port has it."""
        if self._begun:
            self._begun = False
            ray.shutdown()

    def _begin(self) -> None:
        if self._begun:
            return
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                num_cpus=self._workers * self._threads,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
            )
        self._begun = True
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context: Any = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False

    def _outcomes(self, step: Step[Any, Any], paths: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Numbers of items with what came of them, about in their order, as fast as they are taken."""
        if not paths:
            return
        # Reading is asked no core for: the actors may have them all.
        files = ray.data.read_binary_files(list(paths), override_num_blocks=len(paths), num_cpus=0)
        done = files.map_batches(
            _Actor,
            fn_constructor_args=(step,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, len(paths))),
            num_cpus=self._threads,
        )
        for row in done.iter_rows():
            yield pickle.loads(row["outcome"])  # noqa: S301  # Our own actors wrote it.


class _Actor:
    """A step that is open in one of Ray's processes."""

    def __init__(self, step: Step[Any, Any]) -> None:
        self._opened = ExitStack()
        self._work: Callable[[Any], Any] = self._opened.enter_context(step.open())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes = [self._outcome(*pickle.loads(item)) for item in batch["bytes"]]  # noqa: S301  # The build wrote it.
        return {"outcome": np.array([pickle.dumps(outcome) for outcome in outcomes], dtype=object)}

    def _outcome(self, number: int, item: Any) -> tuple[int, Any]:
        """An error is an outcome too: Ray would wrap it, and try again."""
        try:
            return number, self._work(item)
        except PenstockError as error:
            return number, error
        except Exception:  # noqa: BLE001  # Who drives the build tells of it.
            return number, StepFailed(traceback.format_exc())


@contextmanager
def _spooled(items: Iterable[Any], folder: Path) -> Iterator[list[str]]:
    """The items as files, which are gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield [_write(folder / f"{number:09d}", (number, item)) for number, item in enumerate(items)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, item: Any) -> str:
    path.write_bytes(pickle.dumps(item))
    return str(path)
