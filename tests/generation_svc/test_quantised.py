"""A real W8A8 checkpoint beside the bf16 one that it was made of, each in the generation service with vLLM's CPU build.

Their answers are those of one small model that has lost a little: the same facts, and most of the same words. Of memory, what
can be compared is anonymous: libraries, and keys and values of the same size, are in both, so that the difference is that of
the weights.
"""

import asyncio
import difflib
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.meter import MIB, Memory, memory_of
from penstock.clients import GenerationClient
from penstock.clients.generation import Message, Sampling
from tests.generation_svc import processes

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]

SETTINGS = {
    "engine": "vllm", "vllm_enforce_eager": True, "vllm_cache_gb": 0.25, "vllm_prefix_caching": False, "context_window": 1024,
    "running_max": 8,
}  # fmt: skip
FACTS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Japan?": "Tokyo",
    "What is the capital of Germany?": "Berlin",
    "What is the capital of Spain?": "Madrid",
    "Which planet is the largest in the solar system?": "Jupiter",
    "How many days are in a week?": "seven",
    "On which continent is Egypt?": "Africa",
}
OVERLAP_MIN = 0.6
"""Of words, in their order. Two answers to different questions reach some 0.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one checkpoint came to: its weights' files, its service's memory when it was loaded, and what it answered."""

    weights_mib: float
    memory: Memory
    precision: str
    answers: dict[str, str]


def seen(folder: Path, precision: str) -> Seen:
    model = processes.checkpoint(precision)
    with processes.service(folder, processes.vllm_python(), model=model, **SETTINGS) as service:
        memory = memory_of(service.process.pid)
        said, answers = asyncio.run(asked(service.grpc))
    weights_mib = sum(file.stat().st_size for file in model.glob("*.safetensors")) / MIB
    return Seen(weights_mib=weights_mib, memory=memory, precision=said, answers=answers)


async def asked(grpc: str) -> tuple[str, dict[str, str]]:
    sampling = Sampling(temperature=0.0, max_tokens=32)
    async with GenerationClient(grpc) as client:
        (model,) = await client.models()
        answers = {
            question: (await client.generate((Message(role="user", content=question),), sampling=sampling)).text
            for question in FACTS
        }
    return model.precision, answers


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, Seen]:
    """One after the other, so that neither takes the other's processors."""
    plain, quantised = (seen(tmp_path_factory.mktemp(precision), precision) for precision in ("bf16", "w8a8"))
    return plain, quantised


def test_vllm_finds_by_itself_how_each_is_quantised(both: tuple[Seen, Seen]) -> None:
    assert [each.precision for each in both] == ["bf16", "int8-w8a8"]


def test_the_quantised_model_knows_what_the_plain_one_knows(both: tuple[Seen, Seen]) -> None:
    known = [{question for question, fact in FACTS.items() if fact.lower() in each.answers[question].lower()} for each in both]
    plain, quantised = known
    assert len(plain) >= 6, both[0].answers
    assert len(plain & quantised) >= len(plain) - 1, both[1].answers


def test_most_words_of_their_answers_are_the_same(both: tuple[Seen, Seen]) -> None:
    overlaps = [overlap(*(each.answers[question] for each in both)) for question in FACTS]
    assert sum(overlaps) / len(overlaps) > OVERLAP_MIN, [each.answers for each in both]


def test_different_questions_do_not_reach_that_overlap(both: tuple[Seen, Seen]) -> None:
    answers = list(both[0].answers.values())
    overlaps = [overlap(one, other) for one, other in zip(answers, answers[1:] + answers[:1], strict=True)]
    assert sum(overlaps) / len(overlaps) < OVERLAP_MIN


def test_the_quantised_model_takes_less_of_the_disk_and_of_memory(both: tuple[Seen, Seen]) -> None:
    plain, quantised = both
    saved_mib = plain.weights_mib - quantised.weights_mib
    assert saved_mib > 0.35 * plain.weights_mib  # Its embedding, a fifth of it, stays bf16.
    assert plain.memory.anonymous_mib - quantised.memory.anonymous_mib > 0.5 * saved_mib


def overlap(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()
