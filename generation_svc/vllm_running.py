"""A running AsyncLLM: loaded, watched, counted, closed. What engines that generate and that pool have in common."""

import asyncio
import itertools
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from generation_svc import vllm_api
from generation_svc.engine import Load
from generation_svc.vllm_statistics import EngineStatistics
from penstock.errors import EngineFailed, FailedPrecondition, InvalidArgument

log = logging.getLogger("generation_svc.vllm")

_WATCH_INTERVAL_S: Final = 0.05
_DIED: Final = "vLLM's engine has died; its log above says why"


class RunningVllm:
    """Made by `start`. `on_death(reason)` is called once if vLLM dies by itself."""

    def __init__(self, llm: Any, statistics: EngineStatistics, *, on_death: Callable[[str], None]) -> None:
        self.llm = llm
        self._statistics = statistics
        self._on_death = on_death
        self._ids = itertools.count(1)
        self._dead = False
        self._watch = asyncio.create_task(self._watch_over())

    @classmethod
    async def start(cls, arguments: dict[str, Any], *, on_death: Callable[[str], None]) -> "RunningVllm":
        """Loads the model, which takes tens of seconds. Raises FailedPrecondition when it cannot be loaded."""
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # It would tell its makers of every start.
        statistics = EngineStatistics(slots=arguments["max_num_seqs"] * arguments["data_parallel_size"])
        try:
            # In a thread, so that health and NOT_READY are answered meanwhile.
            llm = await asyncio.to_thread(vllm_api.load, arguments, statistics)
        except asyncio.CancelledError:
            # Asked to leave while it loads: the thread can't be stopped, and its engine would outlive this process.
            for child in multiprocessing.active_children():
                child.kill()
            raise
        except Exception as error:
            message = f"vLLM cannot load {arguments['model']}: {error}; its log above has the whole of it"
            raise FailedPrecondition(message) from error
        return cls(llm, statistics, on_death=on_death)

    def new_id(self) -> str:
        """A request's name in vLLM's log."""
        return f"penstock-{next(self._ids)}"

    def health(self) -> bool:
        return not (self._dead or self.llm.errored)

    def load(self) -> Load:
        return self._statistics.load(self.llm.output_processor.get_num_unfinished_requests())

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The boundary at which vLLM's errors become ours. An EngineDeadError is a death that the watch has not seen yet."""
        try:
            yield
        except vllm_api.EngineDeadError as error:
            self._bury()
            raise EngineFailed("vLLM's engine has died; this process is about to leave and be restarted") from error
        except vllm_api.EngineGenerateError as error:
            raise EngineFailed("vLLM failed in this request") from error
        except vllm_api.VLLMClientError as error:
            raise InvalidArgument(f"vLLM refuses the request: {error}") from error

    async def close(self) -> None:
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        self._dead = True  # Not a death to tell of.
        self._fail_running()
        await asyncio.to_thread(self.llm.shutdown)

    async def _watch_over(self) -> None:
        """AsyncLLM tells of its death only to requests; a replica without any must leave too."""
        while not self.llm.errored:  # noqa: ASYNC110  # vLLM has no event for it: a thread of its sets a flag.
            await asyncio.sleep(_WATCH_INTERVAL_S)
        self._bury()

    def _bury(self) -> None:
        if not self._dead:
            self._dead = True
            self._fail_running()
            self._on_death(_DIED)

    def _fail_running(self) -> None:
        # AsyncLLM's own loop does so only when it dies by an error; one that is cancelled leaves its requests waiting for ever.
        self.llm.output_processor.propagate_error(vllm_api.EngineDeadError())
