"""Page tokens: where a page ended, as text that callers pass back and need not understand.

A token holds the last key of its page, so pages stay right while entries come and go, and no page costs more than another.
"""

import base64
import binascii
from typing import Final

from penstock.errors import InvalidArgument, Violation

_VERSION: Final = b"1"


def page_token(last_key: str) -> str:
    """The token of the page after `last_key`."""
    # Without the padding, which would have to be escaped in a URL.
    return base64.urlsafe_b64encode(_VERSION + last_key.encode()).decode().rstrip("=")


def key_after(token: str) -> str:
    """The key after which a page begins; empty for the first.

    Raises InvalidArgument for what page_token did not make.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, key = raw[:1], raw[1:].decode()
    except (binascii.Error, ValueError):
        version, key = b"", ""
    if version != _VERSION or not key:
        message = "page_token is not one that this service gave out; leave it empty to start at the first page"
        violation = Violation(message=message, field="page_token")
        raise InvalidArgument(message, metadata={"field": "page_token"}, violations=[violation])
    return key
