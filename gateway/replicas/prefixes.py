"""Which replica has a prompt's beginning in its prefix cache: a guess from what was sent where.

Engines keep the keys and values of prompts that they have read, and skip them in the next prompt that begins alike. Here a
prompt is a chain of chunks of text, each link a hash of all text up to its end, and every replica has a table of the links that
were sent to it, forgotten in the order in which the engine forgets: least recently used first. The longest match wins.

Prompts of retrieval begin with instructions that a whole flow shares, go on with passages that some questions share, and end
with the question. A match of the instructions alone would draw a whole flow to one replica, and saves nothing once every
replica has them. Where they end is seen from the prompts: it is the last link from which several different prompts have gone
on. So a match counts only beyond that link, and a prompt that has none there is placed by rendezvous hashing (Thaler and
Ravishankar 1998) of its text to the end of the first chunk that is new, which is where passages begin to differ. One passage's
questions then meet at one replica, whichever gateway asks, and a replica that joins or leaves moves only its own share.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

CHUNK_CHARACTERS: Final = 256
"""About 64 tokens, 4 blocks of an engine's cache. With 128, hits were the same (simulated) at twice the hashing."""
CHUNKS_MAX: Final = 64
"""Of a prompt; what comes after them tells no more prompts apart."""
BRANCHES_MIN: Final = 4
"""Ways in which prompts go on after a link that many share. Simulated, 2 to 32 find as much; with more than 4, replicas idle
while a gateway knows few prompts."""
BRANCHES_KEPT: Final = 65_536
LINKS_MAX: Final = 16_384
"""Of one replica: a million tokens, more than most caches hold."""
LINKS_OF_ALL_MAX: Final = 131_072
"""Of all replicas together, about 25 MB."""


class Prefix:
    """How a prompt begins. `known_to` says who calls, for which model: engines share nothing between those."""

    __slots__ = ("_session", "_text", "chain")

    def __init__(self, text: str, *, known_to: str = "", session: str = "") -> None:
        self._text = text[: CHUNK_CHARACTERS * CHUNKS_MAX]
        self._session = session and f"{known_to}\0{session}"
        self.chain = _chain(self._text, hash(known_to))

    @property
    def tells(self) -> bool:
        """Whether there is anything that another request may share."""
        return bool(self.chain or self._session)

    def key(self, known: int) -> bytes:
        """What to place it by: its session, or its text to the end of the first chunk after the `known` ones.

        The same in every process, unlike the links, which never leave theirs.
        """
        told = self._session or self._text[: CHUNK_CHARACTERS * (known + 1)]
        return blake2b(told.encode(errors="replace"), digest_size=8).digest()


class PrefixTable:
    """The links that were sent to one replica.

    A prompt's first link is touched last, so that no link outlives the ones before it, and a match can be searched by halving.
    """

    __slots__ = ("_links",)

    def __init__(self) -> None:
        self._links: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._links)

    def matched(self, chain: Sequence[int]) -> int:
        """How many links of a chain are here."""
        links = self._links
        return bisect_left(range(len(chain)), 1, key=lambda index: chain[index] not in links)

    def add(self, chain: Sequence[int], links_max: int) -> None:
        """Notes that a prompt was sent; keeps at most `links_max` links."""
        links = self._links
        for link in reversed(chain):
            links[link] = None
            links.move_to_end(link)
        while len(links) > links_max:
            links.popitem(last=False)


class Branches:
    """In how many ways prompts have gone on after a link: counted where a prompt leaves what is known of all replicas."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def shared(self, chain: Sequence[int], known: int) -> int:
        """How many of a chain's first `known` links many different prompts begin with."""
        counts = self._counts
        return next((depth for depth in range(known, 0, -1) if counts.get(chain[depth - 1], 0) >= BRANCHES_MIN), 0)

    def add(self, chain: Sequence[int], known: int) -> None:
        """A prompt goes its own way after its first `known` links, if it goes on at all."""
        if not 0 < known < len(chain):
            return
        counts, link = self._counts, chain[known - 1]
        counts[link] = counts.get(link, 0) + 1
        counts.move_to_end(link)
        if len(counts) > BRANCHES_KEPT:
            counts.popitem(last=False)


def weight(address: bytes, key: bytes) -> bytes:
    """A replica's weight for a key: the replica with the largest one is the key's first choice."""
    return blake2b(key, key=address[:64], digest_size=8).digest()


def _chain(text: str, link: int) -> tuple[int, ...]:
    links = []
    for start in range(0, len(text) - CHUNK_CHARACTERS + 1, CHUNK_CHARACTERS):
        link = hash((link, text[start : start + CHUNK_CHARACTERS]))
        links.append(link)
    return tuple(links)
