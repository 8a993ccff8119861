"""What this node has, written into its row by its worker, so that everybody else can read it there."""

from __future__ import annotations

import os
import platform
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from boilerhouse.core import nodes
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Node
from pools import host
from pools.nodes import here

_MB = 1 << 20


def report() -> None:
    """This node's row says what its machine and its engine have now."""
    Node.objects.filter(pk=here().id).update(reported_at=Now(), **_machine(), **_engine())


def _machine() -> dict[str, Any]:
    return {
        "version": settings.VERSION, "arch": platform.machine()[:40],
        "disk_mb": host.disk_mb(), "disk_free_mb": host.free_disk_mb(),
    }  # fmt: skip


def _engine() -> dict[str, Any]:
    """An engine that does not answer leaves the last known amounts."""
    try:
        can = here().runtime.capabilities()
    except BoilerhouseError as error:
        nodes.record_engine(error.detail)
        return {}
    nodes.record_engine("")
    memory_mb = can.memory_mb or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MB
    return {
        "engine_version": can.version[:60], "runtimes": sorted(can.runtimes),
        "cpus": can.cpus or os.cpu_count(), "memory_mb": memory_mb,
    }  # fmt: skip
