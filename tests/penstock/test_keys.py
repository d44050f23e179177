"""The file of API keys: what it may say, and what happens when it changes."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from penstock.identity import Identity, read_principals, write_principals
from penstock.keys import Keyring, kept_fresh, new_key, sha256_of
from tests.penstock.served import until

KEY = new_key()


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "ann", "key_sha256": sha256_of(KEY), "scopes": ["read"], **changes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([entry(principals=["user:ann"])]))
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-api-key": KEY},
        {"authorization": "Basic dTpw", "x-api-key": KEY},
    ],
)
def test_a_key_is_shown_in_either_header(file: Path, metadata: dict[str, str]) -> None:
    expected = Identity(name="ann", tenant="ann", principals=frozenset({"user:ann"}), scopes=frozenset({"read"}))
    assert Keyring(file).identify(metadata) == expected


@pytest.mark.parametrize(
    "metadata",
    [{}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": KEY}, {"authorization": "Basic dTpw"}],
)
def test_without_a_key_the_caller_is_told_how_to_show_one(file: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="Bearer KEY"):
        Keyring(file).identify(metadata)


@pytest.mark.parametrize("key", [KEY[:-1], KEY + "x", KEY.upper(), sha256_of(KEY), "\udcff", "x" * 100_000])
def test_what_is_no_listed_key_is_not_known(file: Path, key: str) -> None:
    with pytest.raises(Unauthenticated, match="not, or no longer, known"):
        Keyring(file).identify({"x-api-key": key})


def test_only_a_key_that_may_says_whose_rights_it_has(file: Path) -> None:
    asserted = {"x-api-key": KEY, "x-penstock-principals": "user:bob, group:legal"}
    with pytest.raises(PermissionDenied, match="may not say on whose behalf"):
        Keyring(file).identify(asserted)
    file.write_text(json.dumps([entry(principals=["user:ann"], may_assert_principals=True)]))
    assert Keyring(file).identify(asserted).principals == {"user:bob", "group:legal"}
    assert Keyring(file).identify({"x-api-key": KEY}).principals == {"user:ann"}


def test_a_key_may_see_everything_or_only_what_all_may_see(file: Path) -> None:
    file.write_text(json.dumps([entry(principals="all")]))
    assert Keyring(file).identify({"x-api-key": KEY}).principals is None
    file.write_text(json.dumps([entry()]))
    assert Keyring(file).identify({"x-api-key": KEY}).principals == frozenset()


def test_principals_of_any_letters_survive_the_header() -> None:
    principals = frozenset({"user:ann", "group:Ä, b", "100%", "a b"})
    assert write_principals(principals).isascii()
    assert read_principals(write_principals(principals)) == principals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file: Invalid JSON"),
        ("{}", "the file: Input should be a valid array"),
        (json.dumps([entry(key="psk_plain")]), "0.key: Extra inputs are not permitted"),
        (json.dumps([entry(), entry(name="b", key_sha256="beef")]), "1.key_sha256: String should match"),
        (json.dumps([entry(scopes=["red"])]), "0.scopes.0: Input should be 'read', 'write' or 'admin'"),
        (json.dumps([entry(scopes=[])]), "0.scopes: List should have at least 1 item"),
        (json.dumps([entry(name="a b")]), "0.name: String should match"),
        (json.dumps([entry(), entry()]), "two have the name 'ann'"),
        (json.dumps([entry(), entry(name="b")]), "two have the key_sha256"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_and_where_but_not_what_stood_there(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(FailedPrecondition) as caught:
        Keyring(file)
    assert words in caught.value.message
    assert "psk_" not in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"none\.json can't be read: No such file"):
        Keyring(tmp_path / "none.json")


def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keyring, other = Keyring(file), new_key()
    file.write_text("[{")
    keyring.reload_if_changed()
    assert keyring.identify({"x-api-key": KEY}).name == "ann"
    assert "the API keys stay as they were" in caplog.text
    file.write_text(json.dumps([entry(name="bob", key_sha256=sha256_of(other))]))
    keyring.reload_if_changed()
    assert keyring.identify({"x-api-key": other}).name == "bob"
    with pytest.raises(Unauthenticated):
        keyring.identify({"x-api-key": KEY})


@pytest.mark.parametrize("asked", [True, False])
async def test_a_key_can_be_revoked_while_the_service_runs(file: Path, asked: bool) -> None:
    keyring = Keyring(file)
    async with kept_fresh(keyring):
        file.write_text("[]")
        if asked:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)

        def is_revoked() -> bool:
            try:
                keyring.identify({"x-api-key": KEY})
            except Unauthenticated:
                return True
            return False

        await until(is_revoked)
