"""Paths and URLs, and the text behind them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from geosam.errors import SceneError


def beside(base: str, href: str) -> str:
    """A path or URL as it is meant in the document at ``base``."""
    if href.startswith("file://"):
        return urlsplit(href).path
    rooted = Path(href).is_absolute() and "://" not in base
    if "://" in href or href.startswith(("/vsi", "~")) or rooted:
        return href
    if "://" not in base:
        return os.path.normpath(Path(base).expanduser().parent / href)
    # urljoin knows only the protocols of the web; the others are told to it as one of them.
    protocol, rest = base.split("://", 1)
    return urljoin(f"http://{rest}", href).replace("http://", f"{protocol}://", 1)


def text_at(url: str) -> str:
    """What a file holds, by path or by any URL that fsspec opens.

    Raises:
        SceneError: It is missing, or cannot be read.
    """
    try:
        if "://" not in url:
            return Path(url).expanduser().read_text(encoding="utf-8")
        import fsspec

        with fsspec.open(url, "rt", encoding="utf-8") as file:
            return str(file.read())
    except Exception as error:  # Every kind of storage raises its own.
        raise SceneError(unread(url, error)) from None


def unread(url: str, error: Exception) -> str:
    """One line on why an address could not be read."""
    if isinstance(error, FileNotFoundError):
        return f"{url} does not exist. Check the path."
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{url} cannot be read ({reason}). Check the address and the network."
