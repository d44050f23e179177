"""A generation service whose times are computed and not waited for: what is measured of it is known beforehand."""

from dataclasses import dataclass

from penstock.cli.benchmark.generating_calls import REFUSED, Exchange
from penstock.cli.benchmark.generating_figures import Figures, Recorder
from penstock.cli.benchmark.loops import Measured, arrivals
from penstock.generation.v1 import generation_pb2 as pb


def exchange(
    sent: float, arrivals: list[tuple[float, int]], *, ended: float | None = None, queued_s: float = 0.0, input_tokens: int = 10
) -> Exchange:
    """An answer whose deltas came at those moments."""
    ended = arrivals[-1][0] if ended is None else ended
    tokens = sum(count for _, count in arrivals)
    done = pb.StreamGenerateResponse.Done(
        finish_reason=pb.FINISH_REASON_LENGTH,
        usage=pb.Usage(input_tokens=input_tokens, output_tokens=tokens, cached_tokens=input_tokens // 2),
        timings=pb.Timings(queued_s=queued_s, first_token_s=arrivals[0][0] - sent, done_s=arrivals[-1][0] - sent),
    )
    return Exchange(sent=sent, ended=ended, arrivals=tuple(arrivals), done=done)


def refusal(sent: float, ended: float) -> Exchange:
    return Exchange(sent=sent, ended=ended, fault=REFUSED, said="64 requests wait, which is the limit")


async def observed(
    exchanges: list[Exchange], *, starts: float, until: float, setting: float = 1.0, is_rate: bool = True
) -> Figures:
    """A window of these, counted by when they were sent."""
    queue = iter(exchanges)

    async def answer(_: int) -> Exchange:
        return next(queue)

    recorder = Recorder(answer)
    recorder.begins(starts, until)
    for number, each in enumerate(exchanges):
        await recorder.call(number)
        recorder.ended(number, counted_from=each.sent, is_counted=starts <= each.sent < until)
    measured = Measured(seconds=until - starts, took_ms=(), faults={}, client_cores=0.1)
    return recorder.figures(measured, setting, is_rate=is_rate)


@dataclass
class VirtualService:
    """Answers one at a time, each in `answer_s`, of which the first token takes `first_s`; at most `waiting_max` wait."""

    answer_s: float = 0.1
    first_s: float = 0.02
    tokens: int = 5
    waiting_max: int = 50

    async def trial(self, rate: float, number: int, seconds: float = 60.0) -> Figures:
        """A window of random arrivals, by a queue's own arithmetic."""
        warmup_s, free_at, exchanges = 20.0, 0.0, []
        begun: list[float] = []
        for sent in arrivals(rate, warmup_s + seconds, seed=number):
            begun = [moment for moment in begun if moment > sent]
            if len(begun) >= self.waiting_max:
                exchanges.append(refusal(sent, sent + 0.001))
                continue
            begins = max(sent, free_at)
            begun.append(begins)
            free_at = begins + self.answer_s
            gap = (self.answer_s - self.first_s) / (self.tokens - 1)
            moments = [(begins + self.first_s + at * gap, 1) for at in range(self.tokens)]
            exchanges.append(exchange(sent, moments, queued_s=begins - sent))
        return await observed(exchanges, starts=warmup_s, until=warmup_s + seconds, setting=rate)
