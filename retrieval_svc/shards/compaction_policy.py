"""Which segments of a shard are worth merging. Only neighbours are, so that rows stay in their numbers' order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from retrieval_svc.shards.head import segment_name
from retrieval_svc.shards.kinds import kind_for
from retrieval_svc.shards.segment import SegmentEntry
from retrieval_svc.values import CollectionSpec, IndexKind, Sequences

GROWTH: Final = 4
"""A segment takes part when those after it together have a fourth of its rows, so a row is written again log4(rows) times."""
RUN_MIN: Final = 4
"""As many segments at least are merged at a time,"""
FLAT_ROWS_MAX: Final = 20_000
"""or fewer, when there are so many rows in flat segments that ought to have an index."""
GONE_SHARE_MAX: Final = 0.2
"""A segment with a greater share of gone rows is written anew."""
GONE_SHARE_KEPT_MAX: Final = 0.1
"""A graph with a smaller share is added to; with a greater one it is built anew, without the gone rows."""

Sizes = Sequence[tuple[SegmentEntry, int]]
"""A shard's segments in the order of their rows, each with the number of those that are gone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactionPlan:
    """What to merge: `inputs` (neighbours, in order) into the segment `name`, without the rows numbered in `gone`.

    `base`: the first input's graph is added to, and its rows all stay; those of them that are gone stay tombstones.
    """

    folder: Path
    spec: CollectionSpec
    inputs: tuple[str, ...]
    gone: Sequences
    name: str
    base: bool


def plan_for(
    folder: Path, spec: CollectionSpec, sizes: Sizes, gone: Sequences, *, force: bool = False
) -> CompactionPlan | None:
    """The plan that is due, None when none is. `force`: all segments into one, unless that is how it is already."""
    run = (list(sizes) if _improvable(spec, sizes) else []) if force else _worn(sizes) or _small(spec, sizes)
    if not run:
        return None
    names = tuple(entry.name for entry, _ in run)
    return CompactionPlan(
        folder=folder, spec=spec, inputs=names, gone=gone, name=segment_name(), base=not force and _extendable(spec, run)
    )


def _improvable(spec: CollectionSpec, sizes: Sizes) -> bool:
    if len(sizes) != 1:
        return len(sizes) > 1
    [(entry, gone)] = sizes
    return gone > 0 or entry.kind is not kind_for(spec.index, entry.row_count)


def _worn(sizes: Sizes) -> Sizes:
    """The first segment with too many gone rows."""
    return next(([(entry, gone)] for entry, gone in sizes if gone > GONE_SHARE_MAX * entry.row_count), [])


def _small(spec: CollectionSpec, sizes: Sizes) -> Sizes:
    """The run of segments at the end that have grown enough to be merged, and enough to be worth it."""
    first, rows = len(sizes), 0
    for at in range(len(sizes) - 1, -1, -1):
        entry, gone = sizes[at]
        if rows and entry.row_count > GROWTH * rows:
            break
        first, rows = at, rows + entry.row_count - gone
    run = sizes[first:]
    flat = sum(entry.row_count for entry, _ in run if entry.kind is IndexKind.FLAT)
    overdue = flat >= FLAT_ROWS_MAX and kind_for(spec.index, rows) is not IndexKind.FLAT
    return run if len(run) >= RUN_MIN or overdue else []


def _extendable(spec: CollectionSpec, run: Sizes) -> bool:
    """Whether the first segment is a graph that is worth adding the others to."""
    first, gone = run[0]
    others = sum(entry.row_count for entry, _ in run[1:])
    return (
        0 < others <= first.row_count
        and first.kind is IndexKind.HNSW is kind_for(spec.index, first.row_count + others)
        and gone < GONE_SHARE_KEPT_MAX * first.row_count
    )
