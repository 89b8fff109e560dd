"""Addresses as they may be shown: without the user and password that they may carry."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"//[^/\s'\"@]*@")


def hide_credentials(text: str) -> str:
    """Return a text in which no address carries a user or password."""
    return _CREDENTIALS.sub("//…@", text)
