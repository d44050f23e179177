"""Chunks, filters and queries at random, of small ranges so that they meet."""

import random
from typing import Any, Final

import numpy as np

from retrieval_svc.filters import AllOf, AnyOf, Exists, Filter, NoneOf, OneOf, Range, parsed_time
from tests.retrieval_svc.random_operations.reference import Row

DIMENSION: Final = 8
IDS: Final = 400
DOCUMENTS: Final = 60
WORDS: Final = (
    "anchor",
    "barge",
    "canal",
    "dredge",
    "estuary",
    "ferry",
    "gunwale",
    "harbour",
    "island",
    "jetty",
    "keel",
    "lock",
)
PRINCIPALS: Final = ("user:ann", "user:bob", "group:legal")
_TAGS: Final = ("red", "green", "blue", "1", "true")
_TIMES: Final = ("2026-01-01", "2026-01-01T12:00:00Z", "2026-03-05T08:30:00+02:00", "2025-12-31T23:59:59Z")


class Drawing:
    """What to do next, the same for the same seed whatever the service answers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._vectors = np.random.default_rng(seed)
        self._centres = self._vectors.standard_normal((12, DIMENSION))
        self._stored = 0

    def row(self) -> Row:
        self._stored += 1
        draw = self.random
        return Row(
            id=f"c{draw.randrange(IDS)}",
            document_id=f"d{draw.randrange(DOCUMENTS)}" if draw.random() < 0.7 else "",
            text=" ".join([*draw.choices(WORDS, k=draw.randint(1, 4)), f"n{self._stored}"]),
            metadata=self.metadata(),
            principals=frozenset(draw.sample(PRINCIPALS, draw.randint(1, 2)) if draw.random() < 0.2 else ()),
            vector=self.vector(),
        )

    def rows(self, count: int) -> list[Row]:
        """Rows of different ids."""
        return list({row.id: row for row in (self.row() for _ in range(count))}.values())

    def vector(self) -> np.ndarray:
        centre = self._centres[self.random.randrange(len(self._centres))]
        return (centre + 0.4 * self._vectors.standard_normal(DIMENSION)).astype("<f4")

    def metadata(self) -> dict[str, Any]:
        draw = self.random
        offered: dict[str, Any] = {
            "number": draw.choice((draw.randrange(100), draw.randrange(100) / 4)),
            "tag": draw.choice(_TAGS),
            "flag": draw.random() < 0.5,
            "when": draw.choice(_TIMES),
            "many": draw.choices((*_TAGS, 1, True, None), k=draw.randint(0, 3)),
            "nested": {"deep": draw.randrange(5), "tag": draw.choice(_TAGS)},
            "mixed": draw.choice((1, "1", True, None, {"a": 1})),
        }
        return {name: value for name, value in offered.items() if draw.random() < 0.8}

    def ids(self) -> list[str]:
        return [f"c{self.random.randrange(IDS)}" for _ in range(self.random.randint(1, 6))]

    def document_ids(self) -> list[str]:
        return [f"d{self.random.randrange(DOCUMENTS)}" for _ in range(self.random.randint(1, 2))]

    def principals(self) -> frozenset[str]:
        return frozenset(self.random.sample(PRINCIPALS, self.random.choice((0, 0, 1, 2))))

    def words(self) -> str:
        return " ".join(self.random.choices((*WORDS, "nowhere"), k=self.random.randint(1, 3)))

    def filter(self, levels: int = 3) -> Filter:
        draw = self.random
        if levels > 1 and draw.random() < 0.3:
            inner = tuple(self.filter(levels - 1) for _ in range(draw.randint(0, 3)))
            return draw.choice((AllOf, AnyOf, NoneOf))(filters=inner)
        return draw.choice((self._one_of, self._range, self._exists))()

    def narrow_filter(self) -> Filter:
        """One that matches a few rows, for deletions."""
        low = float(self.random.randrange(100))
        return Range(field="number", gte=low, lt=low + 2.0)

    def _one_of(self) -> Filter:
        draw = self.random
        name = draw.choice(("tag", "flag", "many", "nested.deep", "nested.tag", "mixed", "number"))
        return OneOf(field=name, values=tuple(draw.choices((*_TAGS, 1.0, 2.0, True, False), k=draw.randint(1, 3))))

    def _range(self) -> Filter:
        draw = self.random
        if draw.random() < 0.3:
            return Range(field="when", **{draw.choice(("gt", "gte", "lt", "lte")): parsed_time(draw.choice(_TIMES))})
        name = draw.choice(("number", "nested.deep", "mixed"))
        return Range(
            field=name, **{draw.choice(("gt", "gte")): draw.uniform(0, 50), draw.choice(("lt", "lte")): draw.uniform(20, 100)}
        )

    def _exists(self) -> Filter:
        return Exists(field=self.random.choice(("tag", "many", "nested", "nested.deep", "mixed", "flag")))
