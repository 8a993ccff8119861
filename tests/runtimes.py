"""The engine of a test's deployment, chosen by its setting as an operator does."""

from __future__ import annotations

import itertools
from typing import Any

from pools.runtime import get_runtime
from pools.runtime.base import ContainerRuntime

_numbers = itertools.count(1)


def runtime_setting(kind: type[ContainerRuntime], base_url: str = "") -> dict[str, Any]:
    """``BOILERHOUSE_RUNTIME`` for an engine of this kind at the address, by default an unused one."""
    address = base_url or f"fake://{next(_numbers)}"
    return {"BACKEND": f"{kind.__module__}.{kind.__qualname__}", "OPTIONS": {"base_url": address}}


def choose_runtime(settings: Any, kind: type[ContainerRuntime], base_url: str = "") -> Any:
    """The deployment has such an engine from now on; this is its runtime."""
    settings.BOILERHOUSE_RUNTIME = runtime_setting(kind, base_url)
    return get_runtime()
