"""The container engine behind one interface; all other code uses ``get_runtime()``."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from pools.runtime.base import ContainerRuntime

__all__ = ["get_runtime"]


@lru_cache(maxsize=8)
def _runtime(_pid: int, backend: str, options: tuple[tuple[str, Any], ...]) -> ContainerRuntime:
    runtime: ContainerRuntime = import_string(backend)(**dict(options))
    return runtime


def get_runtime() -> ContainerRuntime:
    """The runtime that BOILERHOUSE_RUNTIME names, one per process, because its sockets do not survive a fork."""
    chosen = settings.BOILERHOUSE_RUNTIME
    return _runtime(os.getpid(), str(chosen["BACKEND"]), tuple(sorted(chosen["OPTIONS"].items())))
