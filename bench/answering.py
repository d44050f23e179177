"""How a worker answers: a JSON line {"task", "params"} from standard input, a line {"result"} or {"failure"} back."""

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

Task = Callable[..., Awaitable[Any]]
Tasks = Mapping[str, Task]


async def answer_tasks(tasks: Tasks, answers: Any) -> None:
    """Until the input ends."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        asked = orjson.loads(line)
        try:
            answer = {"result": await tasks[asked["task"]](**asked["params"])}
        except Exception:  # noqa: BLE001  # Whoever asked shall see it, whatever it is.
            answer = {"failure": traceback.format_exc()}
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()
