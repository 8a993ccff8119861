"""Health checks of images and containers in the engine's format."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pools.runtime.base import Probed


def probe_command(config: dict[str, Any]) -> tuple[str, ...]:
    """The command that the engine runs for the health check of an image or a container; empty if there is none."""
    kind, *words = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if kind == "CMD-SHELL":
        return (*(config.get("Shell") or ("/bin/sh", "-c")), *words)
    return tuple(words) if kind == "CMD" else ()


def probed_of(document: dict[str, Any]) -> Probed | None:
    log = (document["State"].get("Health") or {}).get("Log")
    if not log:
        return None
    return Probed(probe_command(document["Config"]), log[-1]["ExitCode"], log[-1]["Output"])


def next_probe(document: dict[str, Any]) -> float | None:
    log = (document["State"].get("Health") or {}).get("Log")
    if not log:
        return None
    interval_ns = (document["Config"].get("Healthcheck") or {}).get("Interval") or 30 * 10**9
    return datetime.fromisoformat(log[-1]["End"]).timestamp() + interval_ns / 1e9


def health_of(status: str) -> str:
    """From ``Up 5 minutes (healthy)`` of the engine's list."""
    for word in ("unhealthy", "healthy", "starting"):
        if f"({word})" in status or f"(health: {word})" in status:
            return word
    return ""
