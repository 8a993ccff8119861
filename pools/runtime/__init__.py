"""The container engine behind one interface; ``get_runtime()`` is how the rest of the code meets it."""

from __future__ import annotations

import os
from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from pools.runtime.base import ContainerRuntime

__all__ = ["get_runtime"]


@cache
def _runtime(_pid: int, backend: str) -> ContainerRuntime:
    runtime: ContainerRuntime = import_string(backend)(**dict(settings.BOILERHOUSE_RUNTIME)["OPTIONS"])
    return runtime


def get_runtime() -> ContainerRuntime:
    """The deployment's runtime; a client of its own in each process, for sockets do not survive a fork."""
    return _runtime(os.getpid(), str(settings.BOILERHOUSE_RUNTIME["BACKEND"]))
