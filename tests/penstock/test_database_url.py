"""Every URL that cannot be used is told in one line that says what to set, and never with its password."""

import pytest

from penstock.database_url import DRIVERS, unusable_url

SETTING = "PENSTOCK_RETRIEVAL_DATABASE_URL"


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("", ValueError("secret"), "is no database URL: set it to sqlite"),
        ("db.example.com", ValueError("secret"), "is no database URL: set it to sqlite"),
        ("ann:secret@db://x", ValueError("secret"), "is no database URL: set it to sqlite"),
        ("http://ann:secret@db", ValueError("secret"), "begins with 'http://', which cannot be used: set it to sqlite"),
        ("sqlite:////secret", ValueError("secret"), "begins with 'sqlite://', which cannot be used: set it to sqlite"),
        ("postgresql://ann:secret@db/x", ImportError(name="psycopg"), "begins with 'postgresql://', which cannot be used"),
        ("postgresql+asyncpg://ann:secret@db/x", ImportError(name="asyncpg"), "whose package asyncpg is not installed"),
        ("postgresql+asyncpg://ann:sec/ret@db/x", ValueError("secret"), "a mark in the password such as @ or / is written %40"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_with_what_to_set(url: str, error: Exception, told: str) -> None:
    message = unusable_url(url, SETTING, error).message
    assert message.startswith(SETTING)
    assert told in message
    assert "secret" not in message
    assert "\n" not in message


def test_the_forms_that_are_shown_begin_as_they_must() -> None:
    assert [form.partition("://")[0] for form in DRIVERS.values()] == list(DRIVERS)
