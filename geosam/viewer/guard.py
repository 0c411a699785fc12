"""Nobody but the one who was given the address gets an answer."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

ASGI = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[MutableMapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]
"""An ASGI application."""

HEADER = b"x-geosam-token"
HOSTS = ("127.0.0.1", "localhost")


class Guard:
    """Lets a request through whose path begins with the token, and a change only if its header has it as well.

    The path carries the token, not a cookie, since a page in a cell of a notebook is a third party there, whose
    cookies browsers keep back. The header is what a form or a picture on a foreign page cannot send.

    Args:
        app: What is guarded; it sees paths without the token.
        token: The secret.
        background: Origin of the background map, the only one besides the server's own that a page may load from.
    """

    def __init__(self, app: ASGI, token: str, background: str = "") -> None:
        self._app, self._token = app, token.encode()
        own = f"'self' data: blob: {background}".strip()
        self._policy = (
            f"default-src 'self'; img-src {own}; connect-src {own}; "
            "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = dict(scope.get("headers", ()))
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        known = secrets.compare_digest(first.encode(), self._token) and _is_here(headers.get(b"host", b""))
        if known and scope.get("method") not in ("GET", "HEAD"):
            known = secrets.compare_digest(headers.get(HEADER, b""), self._token)
        if scope["type"] != "http" or not known:
            await _refuse(send)
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "root_path": ""}
        await self._app(inner, receive, self._marked(send))

    def _marked(self, send: Any) -> Any:
        async def sender(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers()]}
            await send(message)

        return sender

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-security-policy", self._policy.encode()),
            (b"referrer-policy", b"no-referrer"),  # The address must not reach a background map's server.
            (b"x-content-type-options", b"nosniff"),
        ]


def _is_here(host: bytes) -> bool:
    """Whether the browser thinks it talks to this machine: a foreign name that resolves here is an attack."""
    return host.decode("latin-1").rsplit(":", 1)[0] in HOSTS


async def _refuse(send: Any) -> None:
    start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
    await send(start)
    await send({"type": "http.response.body", "body": b"Open the whole address that geosam view printed."})
