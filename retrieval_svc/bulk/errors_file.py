"""What of a corpus could not be taken in: the first in memory, all of them in a file.

After a crash some may stand in the file twice; their count is recorded with the rows, and right.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.errors import InvalidArgument, Violation

SHOWN: Final = 20


@dataclass(slots=True, kw_only=True)
class ErrorsFile:
    """Counts what is refused. `count` goes on from a run before; those lines are in the file already."""

    path: Path
    limit: int
    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, refused: Iterable[tuple[str, str]]) -> None:
        """Notes places and messages. Raises InvalidArgument when there are too many."""
        new = list(refused)
        if not new:
            return
        self.count += len(new)
        self.first += new[: SHOWN - len(self.first)]
        with self.path.open("a", encoding="utf-8") as out:
            out.writelines(f"{place}: {message}\n" for place, message in new)
        if self.count > self.limit:
            message = (
                f"{self.count} records cannot be taken in, and {self.limit} were allowed; those so far are in {self.path}. "
                "Mend them, or allow more with --errors-max and go on"
            )
            violations = [Violation(field=place, message=fault) for place, fault in self.first]
            raise InvalidArgument(message, metadata={"limit": str(self.limit)}, violations=violations)
