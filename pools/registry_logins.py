"""Which login a registry is shown: whoever keeps some adds a source when it is loaded."""

from __future__ import annotations

from collections.abc import Callable

from pools.references import Reference
from pools.runtime.base import RegistryLogin

sources: list[Callable[[Reference, str], RegistryLogin | None]] = []
"""Each is asked with the image and the id of the credential that the workload names, empty where it names none."""


def login_for(reference: Reference, credential: str = "") -> RegistryLogin | None:
    """The first that a source has; None: the engine's client configuration of this host's root decides."""
    return next((found for source in sources if (found := source(reference, credential))), None)
