"""Both Python clients, called in the same way, so that each test of one is a test of the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import boilerhouse_client as bh

KINDS = ["sync", "async"]


def make_client(kind: str, *arguments: Any, **options: Any) -> Any:
    """A ``Client``, or an ``AsyncClient`` whose methods wait in an event loop of their own."""
    if kind == "sync":
        return bh.Client(*arguments, **options)
    return Blocking(bh.AsyncClient(*arguments, **options), asyncio.new_event_loop())


class Blocking:
    """An object of the asynchronous client, with the synchronous one's methods."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        if name == "close":
            return self._end if isinstance(self._target, bh.AsyncClient) else self._shown(self._target.aclose)
        return self._shown(getattr(self._target, name))

    def _end(self) -> None:
        """Close the client and its event loop. Raises AssertionError for tasks that the client has left behind."""
        self._loop.run_until_complete(self._target.aclose())
        self._loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(self._loop)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        assert not left, f"The client has left tasks behind: {left}"

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_target", "_loop"):
            super().__setattr__(name, value)
        else:
            setattr(self._target, name, value)

    def __enter__(self) -> Any:
        return self._shown(self._loop.run_until_complete(self._target.__aenter__()))

    def __exit__(self, *error: Any) -> Any:
        return self._loop.run_until_complete(self._target.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        return self._items(self._target.__aiter__())

    def _shown(self, value: Any) -> Any:
        if inspect.ismethod(value) or inspect.isfunction(value):
            return lambda *arguments, **options: self._shown(value(*arguments, **options))
        if inspect.iscoroutine(value):
            return self._shown(self._loop.run_until_complete(value))
        if isinstance(value, AsyncIterator):
            return self._items(value)
        is_ours = type(value).__module__.startswith("boilerhouse_client._async")
        return Blocking(value, self._loop) if is_ours or isinstance(value, AbstractAsyncContextManager) else value

    def _items(self, items: Any) -> Iterator[Any]:
        try:
            while True:
                yield self._shown(self._loop.run_until_complete(anext(items)))
        except StopAsyncIteration:
            pass
        finally:
            if not self._loop.is_closed():
                self._loop.run_until_complete(items.aclose())
