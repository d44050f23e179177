import os
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from penstock.errors import InvalidArgument
from retrieval_svc.bulk.executing import StepFailed
from retrieval_svc.bulk.local_executor import TRIES_MAX, LocalExecutor
from tests.retrieval_svc.bulk.fakes import LargeStep, SquareStep


def workers() -> list[psutil.Process]:
    """The executor's processes below this one: other tests' servers may be there too."""
    below = psutil.Process().children(recursive=True)
    return [child for child in below if "spawn_main" in " ".join(child.cmdline())]


def test_results_come_in_the_order_of_the_items_from_several_processes() -> None:
    with closing(LocalExecutor(3).map(SquareStep(pause_s=0.02), range(30))) as results:
        squares, workers = zip(*results, strict=True)
    assert squares == tuple(number * number for number in range(30))
    assert len(set(workers)) > 1
    assert os.getpid() not in workers


def test_items_are_taken_a_bounded_number_ahead() -> None:
    taken = []
    items = (taken.append(number) or number for number in range(1000))  # type: ignore[func-returns-value]
    with closing(LocalExecutor(2).map(SquareStep(), items)) as results:
        next(results)
        time.sleep(0.2)
        assert len(taken) <= 1 + 2 * 4


def test_large_items_and_large_results_do_not_wait_for_each_other() -> None:
    items = [bytes([number]) * 5_000_000 for number in range(6)]
    with closing(LocalExecutor(1).map(LargeStep(), items)) as results:
        assert [result[:1] for result in results] == [item[:1] for item in items]


def test_what_a_worker_that_died_had_is_done_again(tmp_path: Path) -> None:
    step = SquareStep(fatal=3, deaths=TRIES_MAX - 1, tally=tmp_path / "tally")
    with closing(LocalExecutor(2).map(step, range(8))) as results:
        assert [square for square, _ in results] == [number * number for number in range(8)]
    assert (tmp_path / "tally").read_text().count("died") == TRIES_MAX - 1


def test_an_item_that_kills_every_worker_ends_the_work_with_advice(tmp_path: Path) -> None:
    step = SquareStep(fatal=1, deaths=99, tally=tmp_path / "tally")
    with closing(LocalExecutor(1).map(step, range(4))) as results, pytest.raises(StepFailed, match="too little memory"):
        list(results)
    assert (tmp_path / "tally").read_text().count("died") == TRIES_MAX


def test_an_error_of_ours_arrives_whole() -> None:
    with closing(LocalExecutor(1).map(SquareStep(), [1, -1])) as results:
        next(results)
        with pytest.raises(InvalidArgument, match="negative") as caught:
            next(results)
    assert caught.value.metadata == {"number": "-1"}


def test_a_defect_arrives_with_its_trace() -> None:
    with closing(LocalExecutor(1).map(SquareStep(), [-2])) as results, pytest.raises(StepFailed, match="ValueError: a defect"):
        next(results)


def test_stopping_from_another_thread_ends_the_waiting_and_the_processes() -> None:
    executor = LocalExecutor(2)
    with closing(executor.map(SquareStep(pause_s=60), range(4))) as results:
        threading.Timer(1.0, executor.stop).start()
        with pytest.raises(StepFailed, match="stopped"):
            next(results)
    assert not workers()


def test_closing_early_leaves_no_process_behind() -> None:
    with closing(LocalExecutor(2).map(SquareStep(), range(1000))) as results:
        next(results)
    assert not workers()
