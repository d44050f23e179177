"""Copies of an index of tantivy's, by hard links: a segment's files never change once they are written, they only go."""

import errno
import json
import shutil
from pathlib import Path
from typing import Final

_META: Final = "meta.json"
"""Names the segments; replaced by each commit and each merge."""
_MANAGED: Final = ".managed.json"
"""Names the files that tantivy may delete when no segment needs them."""


def link_index(source: Path, target: Path) -> None:
    """Puts into a folder what an index there consists of, as of its last commit, while merges may go on."""
    while not _linked(source, target):
        pass  # A merge dropped a file in between; the newer description names what replaced it.


def _linked(source: Path, target: Path) -> bool:
    """Whether one description was good for as long as its files were linked."""
    meta = (source / _META).read_bytes()
    for segment in json.loads(meta)["segments"]:
        for file in source.glob(f"{segment['segment_id'].replace('-', '')}.*"):
            try:
                _link(file, target / file.name)
            except FileNotFoundError:
                return False
    shutil.copyfile(source / _MANAGED, target / _MANAGED)
    (target / _META).write_bytes(meta)
    return (source / _META).read_bytes() == meta


def _link(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except FileExistsError:
        pass  # From the round before.
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(file, target)
