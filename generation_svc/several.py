"""Several answers to one prompt: as many requests to the engine, their parts told apart by an index.

Any engine can so give several, and each of its slots is one answer; the prompt's work is shared by the engine's prefix cache.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from generation_svc.engine import Answer, Delta, Finished, GenerationRequest, Timings, Usage

_PARTS_MAX: Final = 64
"""Parts of all answers that wait to be read; beyond them the engine's iterators wait."""


async def several(generate: Callable[[GenerationRequest], Answer], request: GenerationRequest) -> Answer:
    """The deltas of `request.n` answers as they come, each with its index, and at last one Finished for all.

    A seed gives each answer its own: seed, seed + 1, and so on. The first failure of an answer ends them all.
    """
    parts: asyncio.Queue[_Part] = asyncio.Queue(_PARTS_MAX)
    readers = [asyncio.create_task(_read(generate(_single(request, index)), index, parts)) for index in range(request.n)]
    ended: dict[int, Finished] = {}
    try:
        while len(ended) < request.n:
            part = await parts.get()
            if part.error is not None:
                raise part.error
            if isinstance(part.content, Finished):
                ended[part.index] = part.content
            elif part.content is not None:
                yield replace(part.content, index=part.index)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    yield _together([ended[index] for index in range(request.n)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    index: int
    content: Delta | Finished | None = None
    error: BaseException | None = None


async def _read(answer: Answer, index: int, parts: asyncio.Queue[_Part]) -> None:
    try:
        async with aclosing(answer):
            async for content in answer:
                await parts.put(_Part(index=index, content=content))
    except Exception as error:  # noqa: BLE001  # Raised by who reads the parts.
        await parts.put(_Part(index=index, error=error))


def _single(request: GenerationRequest, index: int) -> GenerationRequest:
    seed = request.sampling.seed
    sampling = request.sampling if seed is None else replace(request.sampling, seed=seed + index)
    return replace(request, n=1, sampling=sampling)


def _together(ended: list[Finished]) -> Finished:
    """The first answer's end, with the others' beside it. The prompt is counted once, as callers pay for it."""
    first = ended[0]
    usage = Usage(
        input_tokens=first.usage.input_tokens,
        output_tokens=sum(each.usage.output_tokens for each in ended),
        cached_tokens=first.usage.cached_tokens,
    )
    return replace(first, usage=usage, timings=_timings(ended), alternatives=tuple(ended[1:]))


def _timings(ended: list[Finished]) -> Timings | None:
    known = [each.timings for each in ended if each.timings is not None]
    if not known:
        return None
    return Timings(
        scheduled_ns=min(each.scheduled_ns for each in known),
        first_token_ns=min(each.first_token_ns for each in known),
        last_token_ns=max(each.last_token_ns for each in known),
    )
