"""Credentials in URLs: cut from whatever is logged, written, shown or hashed."""

from __future__ import annotations

import re

_NAMED = r"(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|signature|credential)"
# name=value, name = value, name='a value', and {'name': value} as Python and JSON show it.
_ASSIGNED = r"""(?:\s*=\s*(?=['"])|\s+=\s+|=|['"]\s*:\s*(?=['"]))"""
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|['"]?[^\s&;'")]+)"""
_PARAMETER = re.compile(rf"\b((?:[\w-]*{_NAMED}[\w-]*|sig|odbc_connect){_ASSIGNED}){_VALUE}", re.IGNORECASE)
# A password may hold a slash, unless on the web it looks like a port and a path.
_PORT = r"(?:(?<=http://)|(?<=https://))[^\s/?#:@]*:\d+(?:[/?#]|$)"
_NAME = rf"(?<=://)(?!{_PORT})[^\s/?#:@]*:"
# Up to the last @ of the host part.
_USER = re.compile(rf"(?<=://)[^\s/?#]*@|{_NAME}[^\s@]*@(?:[^\s/?#@]*@)*")
_PASSWORD = re.compile(rf"{_NAME}[^\s@]+@")


def remove_credentials(text: str) -> str:
    """A text without the credentials of the URLs in it: neither user nor password, and *** for secret parameters.

    Args:
        text: a URL, or a message that may hold some, or a connection string (`host=… password=…`).

    Returns:
        The text, with `https://user:password@host/?token=abc` as `https://host/?token=***`.
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("", text))


def has_password(text: str) -> bool:
    """Whether a URL in the text holds a password or a secret parameter; a user's name alone is none."""
    return _PASSWORD.search(text) is not None or _PARAMETER.search(text) is not None
