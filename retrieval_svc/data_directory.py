"""The folder of one process's data."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import FailedPrecondition


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Makes the folder where it is missing and holds it for this process.

    The lock is the kernel's (flock), so it goes with the process however that ends, and a file left behind locks nothing.

    Raises FailedPrecondition when another process holds it, or when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = (path / "lock").open("a+")
    except OSError as error:
        message = f"the data folder {path} cannot be used: {error.strerror}; set PENSTOCK_RETRIEVAL_DATA_DIR to one that can"
        raise FailedPrecondition(message) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            message = (
                f"the data folder {path} is in use by process {holder}; two on one folder would corrupt it. "
                "Stop that one, or set PENSTOCK_RETRIEVAL_DATA_DIR to another folder"
            )
            raise FailedPrecondition(message, metadata={"process_id": holder}) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
