"""A PostgreSQL of the bench's own, in a folder that goes with it, on a free port of the loopback."""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INSTALLED: Final = "usr/lib/postgresql/*/bin/pg_ctl"
_OPTIONS: Final = "-c shared_buffers=512MB -c max_connections=200 -c listen_addresses=127.0.0.1 -c log_min_messages=warning"
_USERS: Final = ("postgres", "nobody")
"""Who it runs as where the bench is run by root, whom PostgreSQL refuses."""


class PostgresMissing(Exception):
    """There is none on this machine, or it does not start; the message says what was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """One that runs: its port, and the process id of its postmaster."""

    port: int
    pid: int

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's."""
        return f"postgresql+asyncpg://penstock@127.0.0.1:{self.port}/{database}"


def installed() -> Path:
    """The programs of the newest that is installed. Raises PostgresMissing."""
    found = sorted(Path("/").glob(_INSTALLED), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("pg_ctl")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    raise PostgresMissing("PostgreSQL is not installed: no pg_ctl below /usr/lib/postgresql or on the PATH")


@asynccontextmanager
async def postgres(programs: Path) -> AsyncIterator[Postgres]:
    """A new cluster by the programs of that folder, with fsync as it is installed. Raises PostgresMissing."""
    folder, user, port = Path(tempfile.mkdtemp(prefix="penstock-bench-pg-")), _other_user(), _free_port()
    data = str(folder / "data")
    control = [str(programs / "pg_ctl"), "-D", data, "-w", "-t", "60"]
    try:
        if user:
            shutil.chown(folder, user)
        await _run([str(programs / "initdb"), "-U", "penstock", "--auth=trust", "--locale=C.UTF-8", "-D", data], folder, user)
        options = f"{_OPTIONS} -c port={port} -c unix_socket_directories={folder}"
        await _run([*control, "-l", str(folder / "log"), "-o", options, "start"], folder, user)
        pid = int((folder / "data/postmaster.pid").read_text().split()[0])
        yield Postgres(port=port, pid=pid)
    finally:
        with contextlib.suppress(PostgresMissing):
            await _run([*control, "-m", "immediate", "stop"], folder, user)
        shutil.rmtree(folder, ignore_errors=True)


async def _run(command: list[str], folder: Path, user: str | None) -> None:
    errors, name = folder / "errors", Path(command[0]).name
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
    with errors.open("ab") as output:  # Not a pipe: the server inherits it, and would hold it open.
        try:
            process = await asyncio.create_subprocess_exec(
                *command, user=user, cwd=folder, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=output
            )
        except OSError as error:
            raise PostgresMissing(f"{name} cannot be run: {error}") from error
    if await process.wait():
        raise PostgresMissing(f"{name} failed: {errors.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _other_user() -> str | None:
    if os.getuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((user for user in _USERS if user in known), None)
