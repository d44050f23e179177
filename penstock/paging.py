"""Page tokens: where a page ended, as text that callers pass back and need not understand.

A token holds its list's name and the last key of its page: pages stay right while entries come and go, no page costs more
than another, and a token of another list is refused.
"""

import base64
import binascii
from typing import Final

from penstock.errors import InvalidArgument, Violation

_SEPARATOR: Final = "\0"


def page_token(listing: str, last_key: str) -> str:
    """The token of the page of `listing` ("collections/x/chunks") after `last_key`; empty where there is none."""
    if not last_key:
        return ""
    # Without the padding, which would have to be escaped in a URL.
    return base64.urlsafe_b64encode(f"{listing}{_SEPARATOR}{last_key}".encode()).decode().rstrip("=")


def key_after(listing: str, token: str) -> str:
    """The key after which a page of `listing` begins; empty for the first.

    Keys are of printable characters, as ids are. Raises InvalidArgument for what page_token did not make for this list.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        made_for, _, key = raw.decode().partition(_SEPARATOR)
    except (binascii.Error, ValueError):
        made_for, key = "", ""
    if made_for != listing or not key or not key.isprintable():  # A NUL, for one, makes PostgreSQL fail.
        raise unknown_token()
    return key


def unknown_token() -> InvalidArgument:
    """What a token gets that its list did not give out."""
    message = "page_token is not one that this list gave out; leave it empty to start at the first page"
    violation = Violation(message=message, field="page_token")
    return InvalidArgument(message, metadata={"field": "page_token"}, violations=[violation])
