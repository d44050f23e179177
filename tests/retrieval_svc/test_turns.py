import asyncio

from retrieval_svc.turns import Turns


class Caller:
    """Wants a turn whenever it is told to, and stays in it until its gate opens."""

    def __init__(self, turns: Turns, key: str) -> None:
        self.turns, self.key = turns, key
        self.begun = 0
        self.gate = asyncio.Event()

    def want(self) -> None:
        self.turns.want(self.key, self.begin)

    def begin(self) -> asyncio.Task[None]:
        self.begun += 1
        return asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        await self.gate.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_next_turn_begins_when_all_calls_of_the_last_have_ended() -> None:
    turns = Turns(open_max=1, turn_max_s=60)
    one, other, apart = Caller(turns, "a"), Caller(turns, "a"), Caller(turns, "b")
    for caller in (one, other, apart):
        caller.want()
    await settle()
    one.want()
    other.want()
    await settle()
    assert (one.begun, other.begun, apart.begun) == (1, 1, 1)
    one.gate.set()
    await settle()
    assert (one.begun, other.begun) == (1, 1)
    other.gate.set()
    await settle()
    assert (one.begun, other.begun) == (2, 2)
    apart.gate.set()
    await settle()
    assert turns._groups == {}, "nothing is kept of groups that want nothing"


async def test_a_turn_that_takes_too_long_holds_up_nobody() -> None:
    turns = Turns(open_max=1, turn_max_s=0.01)
    stuck, other = Caller(turns, "a"), Caller(turns, "a")
    stuck.want()
    await settle()
    other.want()
    while not other.begun:
        await asyncio.sleep(0.001)
    stuck.gate.set()
    other.gate.set()
    await settle()
    assert turns._groups == {}


async def test_a_turn_in_which_nobody_has_anything_left_is_none() -> None:
    turns = Turns(open_max=1, turn_max_s=60)
    turns.want("a", lambda: None)
    await settle()
    assert turns._groups == {}
