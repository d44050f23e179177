"""A real PostgreSQL, started once a session, and a fresh database for each test: `pytest_plugins` or an import brings both.

`database_url` runs a test twice, on SQLite and on PostgreSQL. `postgres` can be stopped, killed and started again by tests that
want to see what happens then; a test that does so leaves it running.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

_BINARIES = "/usr/lib/postgresql/*/bin/pg_ctl"
_USERS = ("postgres", "nobody")
# As installed, but small; fsync stays on, for a commit that is not durable is another thing to test.
_OPTIONS = "-c max_connections=200 -c shared_buffers=64MB -c fsync=on -c listen_addresses=127.0.0.1 -c log_min_messages=warning"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A PostgreSQL of our own, which listens on a port of the loopback and on a socket in its folder."""

    binaries: Path
    folder: Path
    port: int
    user: str | None
    """Who it runs as, where that is not who runs the tests: PostgreSQL refuses to be root."""

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://penstock@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        self._run("initdb", "-U", "penstock", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D", self._data)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"{_OPTIONS} -c port={self.port} -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stops it: "fast" breaks off what runs, "immediate" is as a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It accepts connections but answers nothing, as when its machine hangs."""
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _pids(self) -> list[int]:
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> None:
        # Another program changes the user: with `user` Python forks by itself, which a process that uses gRPC may not survive.
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        # Not a pipe: the server inherits it, and would hold it open.
        with (self.folder / "errors").open("ab") as errors:
            done = subprocess.run(
                [*as_user, str(self.binaries / program), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                check=False,
            )
        assert done.returncode == 0, f"{program}: {done.returncode} " + (self.folder / "errors").read_text() + self._log()

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""


def find_binaries() -> Path | None:
    """The newest PostgreSQL that is installed."""
    found = sorted(Path("/").glob(_BINARIES.lstrip("/")), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("pg_ctl")
    newest = found[-1] if found else Path(on_path).resolve() if on_path else None
    return newest.parent if newest else None


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that runs. It is stopped and removed on the way out."""
    binaries = find_binaries()
    if binaries is None:
        message = "PostgreSQL is not installed (no pg_ctl below /usr/lib/postgresql or on the PATH)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
    cluster = Cluster(binaries=binaries, folder=folder, port=_free_port(), user=_other_user())
    try:
        if cluster.user:
            shutil.chown(folder, cluster.user)
        cluster.create()
        cluster.start()
        yield cluster
    finally:
        with contextlib.suppress(AssertionError):
            cluster.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The session's PostgreSQL."""
    with running_cluster() as cluster:
        yield cluster


@contextlib.contextmanager
def empty_database(cluster: Cluster) -> Iterator[str]:
    """The URL of a database of its own, for those who keep it for longer than a test. Not inside an event loop."""
    name = f"test_{uuid.uuid4().hex}"
    asyncio.run(_administer(cluster, f"CREATE DATABASE {name}"))
    yield cluster.url(name)
    asyncio.run(_administer(cluster, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def postgres_url(postgres: Cluster) -> AsyncIterator[str]:
    """An empty database in PostgreSQL."""
    name = f"test_{uuid.uuid4().hex}"
    await _administer(postgres, f"CREATE DATABASE {name}")
    yield postgres.url(name)
    await _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty database in SQLite."""
    return f"sqlite+aiosqlite:///{tmp_path / 'record.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, in either."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


async def _administer(cluster: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(host="127.0.0.1", port=cluster.port, user="penstock", database="postgres", timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _other_user() -> str | None:
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in _USERS if user in known)
