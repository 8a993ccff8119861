"""System checks: wrong or dangerous settings, each with an id and what to do."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from boilerhouse.core import encryption


@register()
def environment(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for index, key in enumerate(encryption.in_force()):
        try:
            Fernet(key)
        except ValueError:
            found.append(
                Error(
                    f"Encryption key number {index + 1} is not a Fernet key.",
                    hint="BOILERHOUSE_ENCRYPTION_KEYS takes 32 url-safe base64 bytes each, newest first.",
                    id="boilerhouse.E001",
                )
            )
    for program, package, number in (("bwrap", "bubblewrap", 2), ("setpriv", "util-linux", 3)):
        if not shutil.which(program):
            hint = f"apt-get install {package}"
            found.append(
                Error(f"{program} is missing: transfers cannot be jailed.", hint=hint, id=f"boilerhouse.E00{number}")
            )
    if settings.Q_CLUSTER["retry"] <= settings.Q_CLUSTER["timeout"]:
        found.append(Error("Queue retry must exceed its timeout.", id="boilerhouse.E004"))
    if settings.Q_CLUSTER["timeout"] <= settings.BOILERHOUSE_TRANSFER_TIMEOUT_S:
        found.append(
            Error(
                "BOILERHOUSE_TRANSFER_TIMEOUT_S must be below the queue's timeout of 900 s.",
                hint="A transfer ends by its own deadline, never by the queue's.",
                id="boilerhouse.E005",
            )
        )
    if settings.BOILERHOUSE_TRACING and find_spec("opentelemetry") is None:
        hint = "Install the extra: uv sync --extra tracing, or pip install 'boilerhouse[tracing]'."
        found.append(Error("BOILERHOUSE_TRACING is on and OpenTelemetry is missing.", hint=hint, id="boilerhouse.E006"))
    if os.geteuid() != 0:
        found.append(
            Warning(
                "Not root: containers' directories cannot be given to their own users.",
                hint="Run worker and controller as root on the Docker node.",
                id="boilerhouse.W001",
            )
        )
    if settings.DEBUG:
        found.append(Warning("BOILERHOUSE_DEBUG is on.", hint="Never in production.", id="boilerhouse.W002"))
    return found
