"""`penstock keys`: making the API keys that services ask for."""

import json

import click
from pydantic import ValidationError

from penstock.errors import InvalidArgument
from penstock.identity import SCOPES, Scope
from penstock.keys import KeyEntry, new_key, sha256_of


@click.group(name="keys")
def key_commands() -> None:
    """API keys of services (PENSTOCK_<SERVICE>_API_KEYS_FILE)."""


@key_commands.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=["read"],
    show_default=True,
    type=click.Choice(sorted(SCOPES)),
    help="read: look, search, run flows; write: store and delete, and no reading; admin: everything. May be repeated.",
)
@click.option("--principal", "principals", multiple=True, help="Whose access it has, such as user:ann; may be repeated.")
@click.option("--all-principals", is_flag=True, help="Has access to everything.")
@click.option("--may-assert-principals", is_flag=True, help="May say on whose behalf it calls, as a gateway must.")
def new(
    name: str, scopes: tuple[Scope, ...], principals: tuple[str, ...], all_principals: bool, may_assert_principals: bool
) -> None:
    """Make a key for NAME: print it, this once, and the entry to add to the file's JSON list."""
    key = new_key()
    try:
        entry = KeyEntry(
            name=name,
            key_sha256=sha256_of(key),
            scopes=list(scopes),
            principals="all" if all_principals else list(principals),
            may_assert_principals=may_assert_principals,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidArgument(f"{fault['loc'][0]}: {fault['msg']}") from error
    click.echo(f"The key, which is kept nowhere else:\n{key}\n\nIts entry:")
    click.echo(json.dumps(entry.model_dump(), indent=2))
