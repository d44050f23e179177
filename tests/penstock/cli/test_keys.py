"""`penstock keys`, and the key that commands show."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from penstock.cli.command import api_key
from penstock.cli.main import penstock_command
from penstock.errors import InvalidArgument
from penstock.keys import Keyring


def run(*arguments: str) -> str:
    done = CliRunner().invoke(penstock_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_new_keys_entry_opens_to_that_key(tmp_path: Path) -> None:
    told = run("keys", "new", "ann", "--scope", "read", "--scope", "write", "--principal", "user:ann")
    key = next(line for line in told.splitlines() if line.startswith("psk_"))
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([json.loads(told.split("Its entry:")[1])]))
    assert key not in file.read_text()
    identity = Keyring(file).identify({"authorization": f"Bearer {key}"})
    assert (identity.name, identity.scopes, identity.principals) == ("ann", {"read", "write"}, {"user:ann"})


def test_the_help_says_what_scopes_mean() -> None:
    told = " ".join(run("keys", "new", "--help").split())
    assert "write: store and delete, and no reading; admin: everything" in told


def test_two_keys_are_not_the_same() -> None:
    assert run("keys", "new", "a") != run("keys", "new", "a")


def test_a_key_may_be_a_gateways_or_see_everything(tmp_path: Path) -> None:
    entry = json.loads(run("keys", "new", "gw", "--all-principals", "--may-assert-principals").split("Its entry:")[1])
    assert (entry["principals"], entry["may_assert_principals"], entry["scopes"]) == ("all", True, ["read"])


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="name: String should match"):
        run("keys", "new", "a b")


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [(["--api-key", "a"], {}, "a"), ([], {"PENSTOCK_API_KEY": "b"}, "b"), ([], {"PENSTOCK_API_KEY": ""}, "")],
)
def test_commands_show_the_key_that_is_given(arguments: list[str], environment: dict[str, str], shown: str) -> None:
    seen = []
    asking = click.Command("probe", callback=lambda: seen.append(api_key()))
    group = click.Group("root", params=penstock_command.params, callback=penstock_command.callback, commands={"probe": asking})
    CliRunner().invoke(group, [*arguments, "probe"], env=environment, catch_exceptions=False)
    assert seen == [shown]
    assert api_key() == ""
