"""Prompts of a wanted length, and the requests that carry them, as bytes that are ready to be sent.

A prompt is words, some of which all prompts may begin with, as those of a flow begin with its instructions. How many tokens a
word and the chat template are is asked of the service. What is not shared begins with a number that no other request has: a
prompt that was sent before would be found whole in the prefix cache, and prefill would look free.
"""

import itertools
import random
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.cli.benchmark.generating_file import Asked
from penstock.cli.benchmark.generating_lengths import Lengths
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb

REQUESTS_MAX: Final = 512
"""Different requests that are made from distributions; they are asked in turn, each time with another number."""
BYTES_MAX: Final = 64 * 2**20
PROBE_WORDS: Final = (10, 210)
_TAG: Final = b"00000000"
_TAGS: Final = 10 ** len(_TAG)
_ROLES: Final = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
# Words that are one token in most vocabularies, with the space before them.
_COMMON_WORDS: Final = """
about after again air also always animal answer area back bank base because become before best between big black body
book both boy bring build business call car case change child city class clear close cold come common company course cut
dark day deep different door down draw early earth east eat end enough even example eye face fact family far farm fast
few field fire first fish follow food foot force form free front full game gave girl give gold good great green ground
group grow half hand hard head hear heat help high hold home horse hour house idea inch interest island keep kind king
land language large last late lead learn left letter life light line list live long low machine made main map mark
matter mean measure men might mile mind minute money moon morning mother mountain move music name near night north note
number object ocean off open order page paper part pass people picture piece place plan plane plant play point power
problem product question quick rain reach read record rest right river road rock room round rule run sea second sentence
ship short show side sign size sleep slow small snow song sound south space stand star start state stay step stop story
street strong sun surface system table talk teach test thing think thought time top town travel tree turn unit usual
voice walk wall war watch water way week west wheel white whole wind wood word work world year young
"""
_WORDS: Final = tuple(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all requests have in common. `min_tokens`: whether the model can be kept from ending an answer early."""

    model: str
    shared_words: int = 0
    raw: bool = False
    min_tokens: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How many tokens a prompt has: so many for the template, the number and what else is not words, and so many a word."""

    fixed_tokens: float
    tokens_per_word: float

    def words(self, tokens: int) -> int:
        """Words of a prompt of so many tokens, at least 1."""
        return max(1, round((tokens - self.fixed_tokens) / self.tokens_per_word))


def calibrated(tokens_of_probes: Sequence[int]) -> Calibration:
    """From the counted tokens of prompts of PROBE_WORDS. Raises InvalidArgument where the service counts none."""
    (few, many), (words, more_words) = tokens_of_probes, PROBE_WORDS
    if many <= few:
        raise InvalidArgument(
            f"the service counts {few} and {many} tokens for {words} and {more_words} words: it can't be sized"
        )
    tokens_per_word = (many - few) / (more_words - words)
    return Calibration(fixed_tokens=few - tokens_per_word * words, tokens_per_word=tokens_per_word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request around its number. One that was given whole has none, and is sent as it is."""

    before: bytes
    after: bytes | None

    def message(self, tag: int) -> bytes:
        """The bytes to send. The number has always as many digits, so that lengths within them stay true."""
        return self.before if self.after is None else b"%b%08d%b" % (self.before, tag % _TAGS, self.after)


class Workload:
    """The requests to send, by their number from 0 on; after the last comes the first again, with another tag."""

    def __init__(self, requests: Sequence[Prepared]) -> None:
        self._requests = requests
        self._tags = itertools.count(secrets.randbelow(_TAGS))  # Other ones than those of a run before.

    def __len__(self) -> int:
        return len(self._requests)

    def message(self, number: int) -> bytes:
        """The request of that number."""
        return self._requests[number % len(self._requests)].message(next(self._tags))


class PromptMaker:
    """Makes requests of one shape. The same seed gives the same words and lengths."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._drawn = random.Random(shape.seed)  # noqa: S311  # Nothing is secret here.
        # Of its own: the shared words are the same whatever else was drawn.
        self._shared = _words(random.Random(shape.seed), shape.shared_words)  # noqa: S311

    @property
    def shared_words(self) -> int:
        """Words that all made prompts begin with."""
        return self._shape.shared_words

    def probes(self) -> Iterator[bytes]:
        """Requests of PROBE_WORDS without the shared words, for one token."""
        for words in PROBE_WORDS:
            yield self._tagged(f"{_TAG.decode()} {_words(self._drawn, words)}", 1).message(0)

    def of_words(self, words: int, output_tokens: int) -> Prepared:
        """A prompt of so many words, the shared ones first; at least one word is its own."""
        own = _words(self._drawn, max(1, words - self._shape.shared_words))
        return self._tagged(f"{self._shared} {_TAG.decode()} {own}".lstrip(), output_tokens)

    def given(self, asked: Asked, output_tokens: int) -> Prepared:
        """A prompt that a file has."""
        turns = [pb.Message(role=_ROLES[turn.role], content=turn.content) for turn in asked.messages]
        return Prepared(before=self._request(turns, asked.prompt, output_tokens), after=None)

    def _tagged(self, text: str, output_tokens: int) -> Prepared:
        turns = [] if self._shape.raw else [pb.Message(role=pb.ROLE_USER, content=text)]
        before, _, after = self._request(turns, text if self._shape.raw else "", output_tokens).rpartition(_TAG)
        return Prepared(before=before, after=after)

    def _request(self, turns: Sequence[pb.Message], prompt: str, output_tokens: int) -> bytes:
        sampling = pb.Sampling(max_tokens=output_tokens)
        if self._shape.min_tokens:
            sampling.min_tokens = output_tokens
        request = pb.StreamGenerateRequest(model=self._shape.model, messages=turns, prompt=prompt, sampling=sampling)
        return request.SerializeToString()


def _words(drawn: random.Random, count: int) -> str:
    return " ".join(drawn.choices(_WORDS, k=count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask: the lines of a file, or lengths that are drawn. `window` is the model's, 0 where it is not known."""

    prompt_tokens: Lengths
    output_tokens: Lengths
    asked: Sequence[Asked] = ()
    window: int = 0
    seed: int = 0


def make_workload(plan: Plan, maker: PromptMaker, calibration: Calibration) -> tuple[Workload, int]:
    """The requests, and how many of them were shortened to fit the model's window.

    Raises InvalidArgument where most do not fit it, or are too short for what is shared. Stops at BYTES_MAX.
    """
    drawn = random.Random(plan.seed)  # noqa: S311  # Nothing is secret here.
    requests: list[Prepared] = []
    shortened = all_shared = size = 0
    for asked in plan.asked or itertools.repeat(Asked.model_construct(), REQUESTS_MAX):
        output_tokens = asked.output_tokens or plan.output_tokens.draw(drawn)
        if asked.prompt or asked.messages:
            request = maker.given(asked, output_tokens)
        else:
            wanted = asked.prompt_tokens or plan.prompt_tokens.draw(drawn)
            fitting = _fitting(wanted, output_tokens, plan.window)
            shortened += fitting < wanted
            words = calibration.words(fitting)
            all_shared += words < maker.shared_words
            request = maker.of_words(words, output_tokens)
        requests.append(request)
        if (size := size + len(request.before) + len(request.after or b"")) > BYTES_MAX:
            break
    if 2 * shortened > len(requests):
        raise InvalidArgument(
            f"{shortened} of {len(requests)} prompts do not fit the model's window of {plan.window} tokens beside their "
            "answers, with a fiftieth of it to spare; ask for shorter ones (--prompt-tokens, --output-tokens)"
        )
    if 2 * all_shared > len(requests):
        raise InvalidArgument(
            f"{all_shared} of {len(requests)} prompts are shorter than what is shared and the {calibration.fixed_tokens:.0f} "
            "tokens of the chat template together; ask for longer ones (--prompt-tokens) or share less (--shared-prefix-tokens)"
        )
    return Workload(requests), shortened


def _fitting(prompt_tokens: int, output_tokens: int, window: int) -> int:
    """As many tokens of the prompt as the window leaves. A fiftieth is kept free: words are not all one token."""
    return prompt_tokens if not window else min(prompt_tokens, max(1, int(0.98 * (window - output_tokens))))
