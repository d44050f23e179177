"""What became of every component, for whoever asks `penstock flow import --explain`."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One component: what it became (nodes of ours, as "id (type)"; none where it is not part of the flow), and why."""

    component: str
    display_name: str
    type: str
    became: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def explained(lines: Iterable[Line]) -> str:
    """The mapping as text, a component a paragraph."""
    return "\n".join(_paragraph(line) for line in lines)


def _paragraph(line: Line) -> str:
    name = f"{line.component} ({line.display_name})" if line.display_name not in {"", line.component} else line.component
    head = f"{name} -> {', '.join(line.became)}" if line.became else f"{name}: no node"
    return "\n".join([head, *(f"    {note}" for note in line.notes)])
