"""Ports: one process's own, or one that worker processes share and nobody else.

With SO_REUSEPORT the kernel spreads connections over the sockets that listen on one port, and cannot tell a service's workers
from a stranger that somebody started by mistake: they would share the calls in silence. So the parent takes the port first,
without that option, which fails where anybody is, and sets the option afterwards: its workers may join, and whoever wants the
port for itself, as every parent and every single process does, fails on the parent's socket.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import FailedPrecondition


@contextmanager
def reserved(address: str, what: str) -> Iterator[str]:
    """Holds the port of "host:port" for worker processes while the block runs; port 0 becomes a free one. Yields the address.

    Raises FailedPrecondition when somebody is there, or the address is none.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), _number(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        guard = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:
        raise _not_there(address, what, error) from error
    with guard:
        try:
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Connections of the one before may still be closing.
            guard.bind(place)
        except OSError as error:
            raise _not_there(address, what, error) from error
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield f"{host}:{guard.getsockname()[1]}"


def _number(port: str) -> int:
    number = int(port)
    if not 0 <= number <= 65_535:
        raise ValueError("a port is from 0 to 65535")
    return number


def _not_there(address: str, what: str, error: Exception) -> FailedPrecondition:
    setting = f"{what.lower()}_address"
    return FailedPrecondition(f"cannot listen for {what} on {address!r}: {error}; choose another {setting}")
