"""A file that says what to ask: one JSON object a line, such as a log of real traffic.

    {"prompt": "Summarise: ...", "output_tokens": 120}
    {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "output_tokens": 80}
    {"prompt_tokens": 812, "output_tokens": 64}

The third form keeps the lengths of real traffic without its texts. Fields beyond these are not read.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.cli.benchmark.generating_lengths import TOKENS_MAX
from penstock.errors import InvalidArgument

LINES_MAX: Final = 100_000
BYTES_MAX: Final = 256 * 2**20
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX)]


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Asked(BaseModel):
    """One line: what to ask, and how long the answer shall be; None: as the options say."""

    model_config = ConfigDict(frozen=True)

    prompt: str = ""
    messages: tuple[Turn, ...] = ()
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Asked":
        if sum((bool(self.prompt), bool(self.messages), self.prompt_tokens is not None)) != 1:
            message = "give exactly one of prompt, messages and prompt_tokens"
            raise ValueError(message)
        return self


def read_asked(path: Path) -> tuple[Asked, ...]:
    """The lines of a file, at most LINES_MAX. Raises InvalidArgument with the line that is not one of the three forms."""
    if (size := path.stat().st_size) > BYTES_MAX:
        raise InvalidArgument(f"{path} has {size:,} bytes; files of at most {BYTES_MAX:,} are read: take some of its lines")
    try:
        with path.open(encoding="utf-8") as lines:
            asked = tuple(_parsed(path, islice(lines, LINES_MAX)))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read as lines of JSON: {error}") from error
    if not asked:
        raise InvalidArgument(f'{path} is empty; a line is like {{"prompt_tokens": 812, "output_tokens": 64}}')
    return asked


def _parsed(path: Path, lines: Iterator[str]) -> Iterator[Asked]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield Asked.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(map(str, fault["loc"]))
            said = f"{place}: {fault['msg']}" if place else fault["msg"]
            raise InvalidArgument(f"{path}, line {number}: {said}") from error
