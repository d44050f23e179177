from types import SimpleNamespace

from generation_svc.vllm_statistics import EngineStatistics


def step(waiting: int = 0, skipped: int = 0, used: float = 0.0, queries: int = 0, hits: int = 0) -> SimpleNamespace:
    prefix = SimpleNamespace(queries=queries, hits=hits)
    return SimpleNamespace(
        num_waiting_reqs=waiting, num_skipped_waiting_reqs=skipped, kv_cache_usage=used, prefix_cache_stats=prefix
    )


def test_before_the_first_step_no_more_runs_than_there_are_slots() -> None:
    load = EngineStatistics(slots=8).load(12)
    assert (load.running, load.waiting) == (8, 4)


def test_what_the_scheduler_holds_back_waits() -> None:
    statistics = EngineStatistics(slots=8)
    statistics.record(step(waiting=2, skipped=1, used=0.5), None, 0)
    load = statistics.load(6)
    assert (load.running, load.waiting, load.cache_used) == (3, 3, 0.5)


def test_after_the_last_request_nothing_waits_whatever_was_said_last() -> None:
    statistics = EngineStatistics(slots=8)
    statistics.record(step(waiting=2, used=0.5), None, 0)
    assert (statistics.load(0).running, statistics.load(0).waiting, statistics.load(0).cache_used) == (0, 0, 0.0)


def test_tokens_and_preemptions_add_up_over_steps_and_copies() -> None:
    statistics = EngineStatistics(slots=16)
    statistics.record(step(used=0.2, queries=100, hits=60), SimpleNamespace(num_preempted_reqs=1), 0)
    statistics.record(step(used=0.4, queries=50), SimpleNamespace(num_preempted_reqs=2), 1)
    statistics.record(None, None, 0)
    load = statistics.load(2)
    assert (load.prefix_queried_tokens, load.prefix_hit_tokens, load.preemptions) == (150, 60, 3)
    assert round(load.cache_used, 6) == 0.3
