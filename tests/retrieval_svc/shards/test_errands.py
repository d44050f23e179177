import asyncio
from pathlib import Path

import pytest

from penstock.errors import Unavailable
from retrieval_svc.shards.errands import COMPACT, SNAPSHOT, Errands
from retrieval_svc.shards.follower import ShardKey

KEY = ShardKey(uid=3, shard=1)


async def lead(errands: Errands, failure: Exception | None = None) -> list[tuple[ShardKey, str]]:
    """Takes the first errand that comes, as the leading process does."""
    done: list[tuple[ShardKey, str]] = []

    async def do(key: ShardKey, kind: str) -> None:
        done.append((key, kind))
        if failure:
            raise failure

    while not errands.waiting():
        await asyncio.sleep(0.01)
    await errands.run(errands.waiting()[0], do)
    return done


async def test_an_errand_is_done_by_another_process_and_leaves_nothing(tmp_path: Path) -> None:
    leading = asyncio.create_task(lead(Errands(tmp_path / "errands")))
    await asyncio.wait_for(Errands(tmp_path / "errands").ask(KEY, COMPACT), 10)
    assert await leading == [(KEY, COMPACT)]
    assert list((tmp_path / "errands").iterdir()) == []


async def test_why_it_could_not_be_done_comes_back(tmp_path: Path) -> None:
    leading = asyncio.create_task(lead(Errands(tmp_path), failure=Unavailable("the disk is full")))
    with pytest.raises(Unavailable, match="the disk is full"):
        await asyncio.wait_for(Errands(tmp_path).ask(KEY, SNAPSHOT), 10)
    await leading
    assert list(tmp_path.iterdir()) == []


async def test_what_nobody_foresaw_ends_the_waiting_and_shows_no_path(tmp_path: Path) -> None:
    leading = asyncio.create_task(lead(Errands(tmp_path), failure=FileNotFoundError(2, "No such file", str(tmp_path))))
    with pytest.raises(Unavailable, match="log says why") as told:
        await asyncio.wait_for(Errands(tmp_path).ask(KEY, COMPACT), 10)
    await leading
    assert str(tmp_path) not in told.value.message
    assert list(tmp_path.iterdir()) == []


async def test_who_no_longer_waits_takes_the_errand_back(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Errands(tmp_path).ask(KEY, COMPACT), 0.05)
    assert Errands(tmp_path).waiting() == []
