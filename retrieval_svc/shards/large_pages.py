"""Asking the operating system to map an index's files by large pages.

A search of a graph jumps about in all of the vectors, and each jump to another page of 4 KiB may cost a walk through the page
tables: with vectors in large pages of anonymous memory FAISS was measured 20 % faster. Linux keeps files in them where the file
system can (ext4 since 6.16, XFS before), and maps them so when it is asked to.
"""

import ctypes
import sys
from pathlib import Path
from typing import Final

_MADV_HUGEPAGE: Final = 14  # <sys/mman.h>
_MAPS: Final = Path("/proc/self/maps")


def ask_for_large_pages(file: Path) -> None:
    """For every mapping of the file in this process. Where the system knows nothing of it, nothing happens."""
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for start, length in _mappings(str(file.resolve())):
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def _mappings(path: str) -> list[tuple[int, int]]:
    found = []
    for line in _MAPS.read_text().splitlines():
        addresses, *_, name = line.split(maxsplit=5)
        if name == path:
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append((start, end - start))
    return found
