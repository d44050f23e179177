"""What vLLM's scheduler says of itself after each step: kept as it comes, summed when somebody asks."""

from dataclasses import dataclass
from typing import Any

from generation_svc.engine import Load


@dataclass(slots=True)
class _Scheduler:
    waiting: int = 0
    cache_used: float = 0.0


class EngineStatistics:
    """The latest of each scheduler (one for each data-parallel copy), and counts since the start."""

    def __init__(self, *, slots: int) -> None:
        """`slots` is how many requests all schedulers together work on at once."""
        self._slots = slots
        self._schedulers: dict[int, _Scheduler] = {}
        self._prefix_queried_tokens = 0
        self._prefix_hit_tokens = 0
        self._preemptions = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, engine_index: int) -> None:
        """Called on the event loop for each step of the engine, with vLLM's SchedulerStats and IterationStats, or None."""
        if scheduler_stats is not None:
            scheduler = self._schedulers.setdefault(engine_index, _Scheduler())
            scheduler.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            scheduler.cache_used = scheduler_stats.kv_cache_usage
            prefix = scheduler_stats.prefix_cache_stats
            if prefix is not None:
                self._prefix_queried_tokens += prefix.queries
                self._prefix_hit_tokens += prefix.hits
        if iteration_stats is not None:
            self._preemptions += iteration_stats.num_preempted_reqs

    def load(self, unfinished: int) -> Load:
        """With what AsyncLLM counts itself: schedulers say nothing before the first step, nor after the last request."""
        said = min(unfinished, sum(scheduler.waiting for scheduler in self._schedulers.values()))
        running = min(unfinished - said, self._slots)
        used = [scheduler.cache_used for scheduler in self._schedulers.values()]
        return Load(
            running=running,
            waiting=unfinished - running,
            cache_used=sum(used) / len(used) if used and unfinished else 0.0,
            prefix_queried_tokens=self._prefix_queried_tokens,
            prefix_hit_tokens=self._prefix_hit_tokens,
            preemptions=self._preemptions,
        )
