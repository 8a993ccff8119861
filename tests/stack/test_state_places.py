"""Nobody gets or deletes a tenant's state through another name of the same store (P3, P5)."""

from __future__ import annotations

import pytest

from tenants.models import Assignment
from tests.sink_servers import Alias
from tests.stack.conftest import eventually

MAPPING = {"containerPath": "/state", "sinkPath": "${tenantId}/", "direction": "bidirectional", "mode": "sync"}
ALL = {"containerPath": "/state", "sinkPath": "s1/", "direction": "download", "mode": "copy"}


@pytest.fixture
def alias(sink_server):
    alias = Alias(sink_server)
    yield alias
    alias.stop()


def saved(stack, pool: str, tenant: str, text: str) -> None:
    claimed = stack.claim(tenant, pool)
    stack.exec(claimed["containerId"], f"echo {text} > /state/diary")
    stack.release(tenant)


@pytest.mark.any_database
def test_a_claim_at_an_alias_gets_nothing_of_anybody_and_holds_nothing(stack, pools, sink_server, alias):
    """The sink was down when the spec was saved; at its first use it is found out."""
    victims = pools(sink=sink_server.json("s1/"), mappings=[MAPPING])
    saved(stack, victims, "victim", "VICTIM-PRIVATE")
    mallorys = pools(sink={**sink_server.json(""), "endpoint": alias.endpoint}, mappings=[ALL])
    alias.start()

    found = stack.problem("POST", "tenants/mallory/claim", {"poolId": mallorys}, 502, "location_conflict")
    assert f"sync spec {victims}, mapping 0" in found["detail"]
    eventually(lambda: not Assignment.objects.live().filter(tenant_id="mallory").exists(), 30)
    eventually(lambda: stack.ok("GET", f"sync-specs/{mallorys}")["sinkHealth"].get("code") == "location_conflict", 30)
    claimed = stack.claim("victim", victims)
    assert stack.exec(claimed["containerId"], "cat /state/diary") == "VICTIM-PRIVATE\n"


@pytest.mark.any_database
def test_a_save_at_an_alias_deletes_nothing_and_is_done_when_the_spec_is_changed(stack, pools, sink_server, alias):
    """The release waits with what it should save, the victim's state stays, and nothing is lost in the end."""
    victims = pools(sink=sink_server.json("s1/"), mappings=[MAPPING])
    saved(stack, victims, "victim", "VICTIM-PRIVATE")
    narrower = {**MAPPING, "sinkPath": "s1/${tenantId}/", "direction": "upload"}
    sink = {**sink_server.json(""), "endpoint": alias.endpoint}
    mallorys = pools(sink=sink, mappings=[narrower])
    alias.start()

    claimed = stack.claim("victim", mallorys)
    stack.exec(claimed["containerId"], "echo other > /state/other")
    stack.problem("POST", "tenants/victim/release", {}, 502, "save_failed")
    assert Assignment.objects.live().get(tenant_id="victim").outcome == "location_conflict"
    assert sink_server.keys("s1/victim") == {"diary": 15}

    spec = stack.ok("GET", f"sync-specs/{mallorys}")
    changed = {**spec, "sink": sink, "mappings": [{**narrower, "sinkPath": "s2/${tenantId}/"}]}
    stack.ok("PUT", f"sync-specs/{mallorys}?force=true", changed)
    eventually(lambda: not stack.status("victim")["assigned"], 60)
    assert sink_server.keys("s2/victim") == {"other": 6}
    claimed = stack.claim("victim", victims)
    assert stack.exec(claimed["containerId"], "cat /state/diary") == "VICTIM-PRIVATE\n"
