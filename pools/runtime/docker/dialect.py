"""Selects the Docker API version for an engine.

The newest that both sides support, as Docker's own clients do. It is determined before the first call, and again when
the engine behind the socket was replaced: its responses contain its version, and it rejects calls in an unsupported
version before it does anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pools.errors import EngineUnsupported

OLDEST = "1.41"
"""Docker 20.10, the oldest with everything that is needed."""
OLDEST_ENGINE = "20.10"
NEWEST = "1.51"
"""The newest tested version (Docker 28.5). With an engine that no longer supports it, the engine's oldest version is
used."""

_REFUSAL = re.compile(r"client version \S+ is too (old|new)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The versions agreed with an engine."""

    version: str
    """The API version of our calls."""
    engine: str
    """The engine's own version."""
    newest: str
    """The newest API version of the engine, contained in each of its responses."""


def agree(document: dict[str, Any]) -> Dialect:
    """Choose by the response to ``GET /version``. Raises EngineUnsupported for an engine older than Docker 20.10."""
    engine, newest = str(document.get("Version", "")), str(document.get("ApiVersion", ""))
    if _number(newest) < _number(OLDEST):
        raise EngineUnsupported(
            f"The container engine is too old: Docker {engine or 'of an unknown version'} has API"
            f" {newest or 'none'}, and Boilerhouse needs {OLDEST} (Docker {OLDEST_ENGINE}) or newer. Upgrade the"
            " engine, or set DOCKER_HOST to another one."
        )
    oldest = str(document.get("MinAPIVersion", ""))
    version = max(min(newest, NEWEST, key=_number), oldest, key=_number)
    return Dialect(version, engine, newest)


def is_refusal(status: int, body: bytes) -> bool:
    """Whether a response says that the engine does not support the call's version."""
    return status == 400 and _REFUSAL.search(body[:1000].decode(errors="replace")) is not None


def _number(version: str) -> tuple[int, ...]:
    """For comparison: ``1.9`` is older than ``1.41``. Text that is not a version is older than any."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+(\.\d+)*", version) else ()
