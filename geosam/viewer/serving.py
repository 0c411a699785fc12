"""The server: on this machine only, in a thread of its own, ended by its handle."""

from __future__ import annotations

import atexit
import contextlib
import errno
import secrets
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from geosam.errors import OptionsError, RunError
from geosam.viewer.guard import Guard
from geosam.viewer.routes import Page, make_app

HOST = "127.0.0.1"
START_S = 20.0
"""Seconds that the server may take to answer."""


class Viewer:
    """A page that is being served; in a notebook it shows itself in the cell.

    Attributes:
        url: Address of the page, with the token without which there is no answer.
        page: What is shown, and the edits.
    """

    def __init__(self, page: Page, port: int = 0, height_px: int = 640) -> None:
        self.page, self._height_px = page, height_px
        token = secrets.token_urlsafe(24)
        listener = _listener(port)
        self.url = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
        guarded = Guard(make_app(page), token, _origin(page.background))
        config = uvicorn.Config(guarded, log_level="critical", access_log=False, lifespan="off", timeout_keep_alive=5)
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="geosam-view", daemon=True)
        self._thread.start()
        self._closed = threading.Lock()
        self._kept: Path | None = None
        self._wait_for_start()
        atexit.register(self.stop)

    @property
    def is_running(self) -> bool:
        """Whether the page is still served."""
        return self._thread.is_alive()

    def stop(self) -> Path | None:
        """End the server; a save that is under way is finished first.

        Returns:
            Where edits that were not saved have been put; None: there were none.
        """
        atexit.unregister(self.stop)
        if self._closed.acquire(blocking=False):
            self._server.should_exit = True
            self._thread.join(timeout=START_S)
            self._kept = self.page.close()
        return self._kept

    def _repr_html_(self) -> str:
        style = f'width="100%" height="{self._height_px}" style="border: 1px solid #ccc" allow="fullscreen"'
        return f'<iframe src="{self.url}" {style}></iframe>'

    def __repr__(self) -> str:
        return f"Viewer({self.url if self.is_running else 'stopped'})"

    def _wait_for_start(self) -> None:
        until = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise RunError("the page's server did not start. Try another --port.")
            time.sleep(0.01)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: Ctrl-C is the caller's."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave signals alone."""
        yield


def _listener(port: int) -> socket.socket:
    """A socket of this machine alone.

    Raises:
        OptionsError: The port is taken or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        what = "is taken" if taken else f"cannot be used ({getattr(error, 'strerror', None) or error})"
        raise OptionsError(f"port {port} of {HOST} {what}. Give another --port, or --port 0 for a free one.") from None
    return listener


def _origin(template: str | None) -> str:
    """Scheme and host of a background map's address."""
    if template is None:
        return ""
    parts = urlsplit(template)
    return f"{parts.scheme}://{parts.netloc.replace('{s}', '*')}"
