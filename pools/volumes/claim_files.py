"""The files that a claim writes into a container's RAM directory: config, secrets and ``claim.json``."""

from __future__ import annotations

import json
import os
import secrets
from typing import Any
from uuid import UUID

from pools.spec import Owner
from pools.volumes.handles import open_directory
from pools.volumes.paths import secrets_dir


def provision(
    container_id: UUID,
    owner: Owner,
    config: dict[str, Any] | None,
    claim_secrets: dict[str, str],
    claim: dict[str, Any],
) -> None:
    """Write config and secrets, then ``claim.json`` last, each by write and rename, 0400 of the container's user."""
    directory = open_directory(secrets_dir(container_id))
    try:
        if config is not None:
            _write(directory, "config.json", json.dumps(config).encode(), owner)
        for name, value in claim_secrets.items():
            _write(directory, name, value.encode(), owner)
        _write(directory, "claim.json", json.dumps(claim).encode(), owner)
    finally:
        os.close(directory)


def _write(directory: int, name: str, content: bytes, owner: Owner) -> None:
    draft = f".{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), *owner)
    os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
