"""Merges segments, in a process of its own: files in, files out.

    python -m retrieval_svc.shards.compaction PLAN

It runs at a lower priority, and its memory goes with it: the vectors of the result and their graph where that is an HNSW
index, blocks of rows and 16 bytes a row otherwise. What it leaves half done when it is killed is a folder that no checkpoint
names.
"""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from penstock.errors import FailedPrecondition
from retrieval_svc.shards.checkpoint import PLANS
from retrieval_svc.shards.columns import Columns
from retrieval_svc.shards.compaction_policy import CompactionPlan
from retrieval_svc.shards.disk import LOCAL_DISK, Disk, full_disk_told
from retrieval_svc.shards.documents import Hashes
from retrieval_svc.shards.exact import BLOCK_ROWS, Rows
from retrieval_svc.shards.index import use_threads
from retrieval_svc.shards.segment import INDEX, SEGMENTS, Segment, SegmentEntry, read_entry
from retrieval_svc.shards.segment_writer import SegmentWriter, nothing_written
from retrieval_svc.values import CollectionSpec, IndexConfig, IndexKind, LexicalConfig, Matrix, Metric

NICENESS: Final = 10


def write_plan(plan: CompactionPlan, folder: Path, *, disk: Disk = LOCAL_DISK) -> Path:
    """Writes a plan for the process that carries it out, and gives its path. `folder` is the shard's."""
    path = folder / PLANS / f"{plan.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "folder": str(plan.folder.absolute()),
        "spec": asdict(plan.spec),
        "inputs": plan.inputs,
        "name": plan.name,
        "base": plan.base,
        "gone": plan.gone.tolist(),
    }
    with full_disk_told(folder):
        disk.write(path, orjson.dumps(document, default=lambda value: value.value))
    return path


def read_plan(path: Path) -> CompactionPlan:
    """Back from its file."""
    document = orjson.loads(path.read_bytes())
    return CompactionPlan(
        folder=Path(document["folder"]),
        spec=_spec(document["spec"]),
        inputs=tuple(document["inputs"]),
        gone=np.array(document["gone"], np.int64),
        name=document["name"],
        base=document["base"],
    )


def read_result(plan: CompactionPlan, *, disk: Disk = LOCAL_DISK) -> SegmentEntry:
    """What became of a plan whose process ended well; an entry without rows when all of them were gone."""
    disk.remove(plan.folder / PLANS / f"{plan.name}.json")
    return read_entry(plan.folder, plan.name) or nothing_written(plan.name)


def run(plan: CompactionPlan, *, disk: Disk = LOCAL_DISK) -> SegmentEntry:
    """Merges, on the calling thread. Raises FailedPrecondition when the disk is full or an input is gone."""
    parts = [_part(plan, name, keep_all=plan.base and at == 0) for at, name in enumerate(plan.inputs)]
    if not any(len(part.rows) for part in parts):
        return nothing_written(plan.name)
    base = plan.folder / SEGMENTS / plan.inputs[0] / INDEX if plan.base else None
    spec = plan.spec
    with full_disk_told(plan.folder), SegmentWriter(plan.folder, plan.name, spec.dimension, spec.metric, disk=disk) as writer:
        for part, rows, vectors in _blocks(parts):
            segment = part.segment
            lengths = None if segment.lengths is None else segment.lengths[rows]
            documents = None if part.documents is None else part.documents[rows]
            writer.add(segment.sequences[rows], vectors, lengths, segment.payloads(rows), documents)
        columns = Columns.merged([(part.segment.columns, part.rows) for part in parts])
        return writer.finish(columns, spec.index, base=base)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """A segment, which of its rows go on, and the hashes of all its rows' documents where its files have them."""

    segment: Segment
    rows: Rows
    documents: Hashes | None


def _part(plan: CompactionPlan, name: str, *, keep_all: bool) -> _Part:
    entry = read_entry(plan.folder, name)
    if entry is None:
        raise FailedPrecondition(f"segment {name} of {plan.folder} is gone; plan the compaction anew")
    segment = Segment.open(plan.folder, entry)
    kept = np.ones(len(segment), np.bool_) if keep_all else ~np.isin(segment.sequences, plan.gone)
    documents = None if segment.documents is None else segment.documents.by_row()
    return _Part(segment=segment, rows=np.flatnonzero(kept), documents=documents)


def _blocks(parts: list[_Part]) -> Iterator[tuple[_Part, Rows, Matrix]]:
    for part in parts:
        for start in range(0, len(part.segment), BLOCK_ROWS):
            first, last = np.searchsorted(part.rows, [start, start + BLOCK_ROWS])
            rows = part.rows[first:last]
            yield part, rows, part.segment.vectors.read(start, start + BLOCK_ROWS)[rows - start]


def _spec(document: dict[str, Any]) -> CollectionSpec:
    index = document["index"] | {"kind": IndexKind(document["index"]["kind"])}
    changed = {
        "metric": Metric(document["metric"]),
        "index": IndexConfig(**index),
        "lexical": LexicalConfig(**document["lexical"]),
    }
    return CollectionSpec(**(document | changed))


def main() -> None:
    """Carries out the plan whose path is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's Ctrl-C goes to the whole group; the parent ends this process.
    os.nice(NICENESS)
    use_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        run(read_plan(Path(sys.argv[1])))
    except FailedPrecondition as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
