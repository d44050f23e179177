"""How answers look in a terminal."""

from collections.abc import Sequence
from typing import Final, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

TEXT_SHOWN: Final = 220


class Scored(Protocol):
    """A passage that was found, whichever service it comes from."""

    @property
    def text(self) -> str: ...

    @property
    def score(self) -> float: ...

    @property
    def chunk_id(self) -> str: ...


def print_sources(console: Console, sources: Sequence[Scored]) -> None:
    """A row a passage: rank, score, id, the beginning of its text."""
    table = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
    for rank, source in enumerate(sources, 1):
        text = " ".join(source.text.split())
        shown = text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].rsplit(" ", 1)[0] + " …"
        table.add_row(f"[{rank}]", f"{source.score:.3f}", Text(source.chunk_id, "cyan"), Text(shown))
    console.print(table)
