"""A pool whose state is in a directory of this machine, through the API alone; and a hostile tenant of it (P3, P11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

from tests.stack.conftest import eventually

pytestmark = pytest.mark.any_database

MAPPING = {"containerPath": "/state", "sinkPath": "t/${tenantId}/", "direction": "bidirectional", "mode": "sync"}


def succeeded(stack, run) -> None:
    state = eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["finishedAt"] and run["id"], 30)
    found = stack.ok("GET", f"sync-runs/{state}")
    assert found["state"] == "succeeded", found


def test_a_local_sink_keeps_a_tenants_state_and_what_its_saves_replaced(stack, pools):
    root = Path(settings.BOILERHOUSE_LOCAL_SINK_ROOT)
    pool = pools(sink={"type": "local", "path": str(root / "notes")}, mappings=[MAPPING], warm=2, maxSize=3)
    held = stack.claim("lou", pool)
    stack.exec(held["containerId"], "echo one > /state/a; echo gone > /state/b; ln -s a /state/link; mkdir /state/d")
    (run,) = stack.ok("POST", f"sync-specs/{pool}/trigger", {"tenantId": "lou"}, 202)["runs"]
    succeeded(stack, run)
    stack.release("lou")
    held = stack.claim("lou", pool)
    assert stack.exec(held["containerId"], "cat /state/link; ls /state") == "one\na\nb\nd\nlink\n"
    stack.exec(held["containerId"], "echo two > /state/a; rm /state/b")
    stack.release("lou")
    assert (root / "notes/t/lou/a").read_text() == "two\n"

    (backup,) = stack.ok("GET", "tenants/lou/backups")["items"]
    assert (backup["containerPath"], backup["files"], backup["specId"]) == ("/state", 2, pool)
    path = f"tenants/lou/backups/{backup['id']}/restore"
    held = stack.claim("lou", pool)
    stack.problem("POST", path, None, 409, "held")
    stack.problem("POST", f"tenants/mallory/backups/{backup['id']}/restore", None, 404, "backup_not_found")
    stack.release("lou", sync=False)
    succeeded(stack, stack.ok("POST", path, None, 202))
    held = stack.claim("lou", pool)
    assert stack.exec(held["containerId"], "cat /state/a /state/b; readlink /state/link") == "one\ngone\na\n"


def test_a_hostile_tenant_of_a_local_sink_reaches_nobody_elses(stack, pools):
    """The sink lies on this host: links to it, to its root and to another tenant's part lead nowhere."""
    root = Path(settings.BOILERHOUSE_LOCAL_SINK_ROOT)
    pool = pools(sink={"type": "local", "path": str(root / "shared")}, mappings=[MAPPING], warm=2, maxSize=3)
    victim = stack.claim("victim", pool)
    stack.exec(victim["containerId"], "echo CANARY > /state/secret")
    stack.release("victim")
    mallory = stack.claim("mallory", pool)
    stack.exec(
        mallory["containerId"],
        f"cd /state; ln -s {root}/shared/t/victim inside; ln -s /sink/shared/t/victim jailed; ln -s ../victim up;"
        " ln -s secret secret; echo mine > mine; mkdir -p deep; ln -s /sink deep/sink",
    )
    for direction in ("outward", "inward", "outward"):
        (run,) = stack.ok("POST", "tenants/mallory/sync", {"direction": direction}, 202)["runs"]
        eventually(lambda run=run: stack.ok("GET", f"sync-runs/{run['id']}")["finishedAt"], 30)
    stack.release("mallory")
    kept = {path.relative_to(root / "shared/t") for path in (root / "shared/t").rglob("*") if path.is_file()}
    assert {str(path) for path in kept} == {"victim/secret", "mallory/mine"}
    assert not any(path.is_symlink() for path in root.rglob("*"))
    again = stack.claim("mallory", pool)
    assert "CANARY" not in stack.exec(again["containerId"], "cat /state/* /state/*/* 2>/dev/null; true")
    again = stack.claim("victim", pool)
    assert stack.exec(again["containerId"], "cat /state/*") == "CANARY\n"
