"""Credentials in URLs, which are removed from all that is logged, written, shown or hashed."""

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
    """Remove user and password from the URLs in a text, and replace secret parameters by ***.

    Args:
        text: a URL, or a message that may hold some, or a connection string (`host=… password=…`).

    Returns:
        The text, with `https://user:password@host/?token=abc` as `https://host/?token=***`.
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("", text))


def has_password(text: str) -> bool:
    """Return whether a URL in the text holds a password or a secret parameter."""
    return _PASSWORD.search(text) is not None or _PARAMETER.search(text) is not None
