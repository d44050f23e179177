"""What commands share: the addresses that they call, and how a coroutine becomes a command."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Final, ParamSpec

import click

P = ParamSpec("P")


def in_loop(command: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A click command out of a coroutine function."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(command(*args, **kwargs))

    return update_wrapper(run, command)


def api_key() -> str:
    """The key that the command shows to services, empty where none is given."""
    context = click.get_current_context(silent=True)
    return context.find_root().params.get("api_key", "") if context else ""


def _address_option(name: str, default: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", envvar=f"PENSTOCK_{name.upper()}", default=default, show_default=True, help=help_text)


GATEWAY_OPTION: Final = _address_option("gateway", "127.0.0.1:50050", "The gateway's gRPC address.")
RETRIEVAL_OPTION: Final = _address_option("retrieval", "127.0.0.1:50051", "The retrieval service's gRPC address.")
GENERATION_OPTION: Final = _address_option("generation", "127.0.0.1:50052", "The generation service's gRPC address.")
