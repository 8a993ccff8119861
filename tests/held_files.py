"""A tenant's files in a real guest agent, within the test process and without an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pools import guest
from pools.models import WorkloadVersion
from tenants.models import Assignment
from tests.guest_agent import sealed_agent
from tests.make import make_held


@contextlib.contextmanager
def held_files(directory: Path, home: Path, monkeypatch: Any, tenant: str = "alice") -> Iterator[Assignment]:
    """The tenant holds a container whose state volume is ``home``, and whose secrets are mounted in ``directory``."""
    with sealed_agent(directory / "run", monkeypatch):
        row = make_held(tenant=tenant)
        version = WorkloadVersion.objects.get(pk=row.container.version_id)
        for volume in version.spec_json["volumes"]:
            volume["container_path"] = str(home if volume["name"] == "state" else directory / volume["name"])
        (directory / "secrets").mkdir()
        guest.run(None, ("mount", "-t", "tmpfs", "none", str(directory / "secrets")), 9000)
        version.save()
        yield row
