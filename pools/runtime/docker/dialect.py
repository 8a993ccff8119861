"""Which version of the Docker API is spoken with an engine.

The newest that both sides know, as Docker's own clients do. Found out before the first call, and again when the engine
behind the socket has become another one: its answers name its version, and it refuses calls in one that it does not
speak before it does anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pools.errors import EngineUnsupported

OLDEST = "1.41"
"""Docker 20.10, which has everything that is asked of an engine."""
OLDEST_ENGINE = "20.10"
NEWEST = "1.51"
"""The newest that was tested (Docker 28.5). An engine that has left that behind is spoken to in its own oldest."""

_REFUSAL = re.compile(r"client version \S+ is too (old|new)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What was agreed with an engine."""

    version: str
    """The API version of our calls."""
    engine: str
    """The engine's own version."""
    newest: str
    """The newest API version that the engine has; each of its answers names it."""


def agree(said: dict[str, Any]) -> Dialect:
    """Choose by what ``GET /version`` says. Raises EngineUnsupported for an engine older than Docker 20.10."""
    engine, newest = str(said.get("Version", "")), str(said.get("ApiVersion", ""))
    if _number(newest) < _number(OLDEST):
        raise EngineUnsupported(
            f"The container engine is too old: Docker {engine or 'of an unknown version'} has API"
            f" {newest or 'none'}, and Boilerhouse needs {OLDEST} (Docker {OLDEST_ENGINE}) or newer. Upgrade the"
            " engine, or set DOCKER_HOST to another one."
        )
    oldest = str(said.get("MinAPIVersion", ""))
    version = max(min(newest, NEWEST, key=_number), oldest, key=_number)
    return Dialect(version, engine, newest)


def is_refusal(status: int, body: bytes) -> bool:
    """Whether an answer says that the engine does not speak the version of the call."""
    return status == 400 and _REFUSAL.search(body[:1000].decode(errors="replace")) is not None


def _number(version: str) -> tuple[int, ...]:
    """To compare by: ``1.9`` is older than ``1.41``. What is no version is older than any."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+(\.\d+)*", version) else ()
