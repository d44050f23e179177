"""What the affinity part asks: rendered prompts of retrieval, and conversations, of flows with long instructions of their own.

The texts are the example corpus's. A flow has a collection of its own, so that its instructions stand before its passages
alone. A question's first passage is the one that answers it, the second is one of two neighbours.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.corpus import answered_passages
from gateway.backends import GenerateRequest, Sampling

FLOWS: Final = 4
QUESTIONS_OF_A_PASSAGE: Final = 4
INSTRUCTION_CHARACTERS: Final = 1600
TURN_CHARACTERS: Final = 500
TURNS: Final = 4
_SEED: Final = 7
_SAMPLING: Final = Sampling(max_tokens=8, temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, and which part of the workload it is of: "rag" or "chat"."""

    kind: str
    request: GenerateRequest


def workload(mark: str, *, passage_count: int) -> list[Asked]:
    """All requests in the order in which they come: QUESTIONS_OF_A_PASSAGE a passage, and a conversation for three passages.

    `mark` stands first in each, so that two runs share no cached prefix.
    """
    session_count = max(1, passage_count // 3)
    found = answered_passages(QUESTIONS_OF_A_PASSAGE)
    passages = list(found)
    instructions = [_instructions(mark, flow, passages) for flow in range(FLOWS)]
    asked = _retrieval(found, passages, instructions, passage_count) + _first_turns(instructions, passages, session_count)
    random.Random(_SEED).shuffle(asked)
    for turns in range(2, TURNS + 1):  # A turn comes a while after the one before it.
        later = [_turn(instructions, passages, session, turns) for session in range(session_count)]
        at = len(asked) * turns // (TURNS + 1)
        asked[at:at] = later
    return asked


def _retrieval(
    found: Mapping[str, Sequence[str]], passages: Sequence[str], instructions: Sequence[str], count: int
) -> list[Asked]:
    asked = []
    for number, passage in enumerate(passages[:count]):
        for at, question in enumerate(found[passage]):
            second = passages[(number + 1 + at % 2) % len(passages)]
            prompt = f"[1] {passage}\n\n[2] {second}\n\nQuestion: {question}"
            asked.append(_asked("rag", instructions[number % FLOWS], prompt))
    return asked


def _first_turns(instructions: Sequence[str], passages: Sequence[str], count: int) -> list[Asked]:
    return [_turn(instructions, passages, session, 1) for session in range(count)]


def _turn(instructions: Sequence[str], passages: Sequence[str], session: int, turns: int) -> Asked:
    said = [f"User: what of {session} and {at}?\nAssistant: {_said(passages, session, at)}" for at in range(turns)]
    return _asked("chat", instructions[session % FLOWS], "\n".join([*said, "User: and then?"]))


def _said(passages: Sequence[str], session: int, at: int) -> str:
    return passages[-1 - (7 * session + at) % len(passages)][:TURN_CHARACTERS]


def _instructions(mark: str, flow: int, passages: Sequence[str]) -> str:
    examples = " ".join(passages[-10 - 5 * flow : -5 - 5 * flow])
    text = f"{mark} You are assistant number {flow}. Answer from the passages alone, as in these examples. {examples}"
    return text[:INSTRUCTION_CHARACTERS]


def _asked(kind: str, system: str, prompt: str) -> Asked:
    return Asked(kind=kind, request=GenerateRequest(model="default", system=system, prompt=prompt, sampling=_SAMPLING))
