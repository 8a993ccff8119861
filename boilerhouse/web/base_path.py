"""Serves everything below a path of the proxy (BOILERHOUSE_BASE_PATH), whether or not the proxy removes the path."""

from __future__ import annotations

from typing import Any


class BelowBasePath:
    """An ASGI application that serves another one below ``base`` (such as ``/boilerhouse``, or empty), whatever the
    client sends.

    Daphne takes a root path from a client header, which is ignored here.
    """

    def __init__(self, application: Any, base: str) -> None:
        self.application, self.base = application, base

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "root_path": self.base, "path": self._whole(scope["path"])}
        await self.application(scope, receive, send)

    def _whole(self, path: str) -> str:
        if not self.base or path.startswith(f"{self.base}/"):
            return path
        return f"{self.base}/" if path == self.base else self.base + path
