"""A tenant's state when the sink fails, and the files that a save may delete (P4, P5)."""

from __future__ import annotations

import os
import signal

import pytest

from boilerhouse.core.models import Process
from boilerhouse.process import processes
from pools import volumes
from pools.models import Container, HostLease
from syncing.models import SavedState, SyncRun
from tenants.models import Assignment
from tests.stack.conftest import eventually

STATE = "t/${tenantId}/"


def test_a_failed_restore_answers_502_and_holds_nothing(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("ana", pool)
    stack.exec(claimed["containerId"], "echo precious > /state/x")
    stack.release("ana")
    sink_server.stop()
    stack.problem("POST", "tenants/ana/claim", {"poolId": pool}, 502, "restore_failed")

    assert stack.status("ana")["state"] in (None, "releasing")
    eventually(lambda: not Assignment.objects.live().filter(tenant_id="ana").exists(), 30)
    sink_server.start()
    again = stack.claim("ana", pool)
    assert stack.exec(again["containerId"], "cat /state/x") == "precious\n"


def test_a_failed_save_keeps_the_state_frees_the_slot_and_is_retried(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=1, maxSize=1)
    claimed = stack.claim("ben", pool)
    stack.exec(claimed["containerId"], "seq 1 5000 > /state/numbers; ln -s numbers /state/link")
    sink_server.stop()
    found = stack.problem("POST", "tenants/ben/release", {}, 502, "save_failed")

    assert "kept on the node" in found["detail"]
    assert stack.status("ben")["state"] == "release_failed"
    assert stack.status("ben")["syncStatus"]["errors"][0]["code"] == "unreachable"
    assert stack.ok("GET", f"pools/{pool}")["status"]["releaseFailed"] == 1
    stack.problem("POST", "tenants/ben/claim", {"poolId": pool}, 409, "release_failed")
    stack.wait_warm(pool)  # the slot is free although maxSize is 1

    sink_server.start()
    eventually(lambda: not stack.status("ben")["assigned"], 60)
    again = stack.claim("ben", pool)
    assert stack.exec(again["containerId"], "wc -l < /state/numbers; readlink /state/link") == "5000\nnumbers\n"
    assert not volumes.home(Assignment.objects.filter(tenant_id="ben").earliest("created_at").container_ref).exists()


def test_discard_gives_up_a_failed_save_and_keeps_it_recoverable(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE))
    claimed = stack.claim("cleo", pool)
    stack.exec(claimed["containerId"], "echo last words > /state/x")
    sink_server.stop()
    stack.problem("POST", "tenants/cleo/release", {}, 502, "save_failed")
    stack.release("cleo", discard=True)

    assert stack.status("cleo")["assigned"] is False
    (kept,) = volumes.trash_dir().glob(f"{claimed['containerId']}.discarded-*")
    assert (kept / "state" / "x").read_text() == "last words\n"


@pytest.mark.any_database
def test_sync_false_deletes_the_state_because_the_caller_said_so(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE))
    claimed = stack.claim("dan", pool)
    stack.exec(claimed["containerId"], "echo gone > /state/x")
    stack.release("dan", sync=False)

    assert not sink_server.keys()


@pytest.mark.any_database
def test_deletes_happen_only_after_a_restore_of_the_same_mapping(stack, pools, sink_server):
    """Files of the sink that this generation never saw are not deleted by its save."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("eve", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/one; echo 2 > /state/two")
    stack.release("eve")
    claimed = stack.claim("eve", pool)
    stack.exec(claimed["containerId"], "rm /state/one")
    stack.release("eve")
    assert set(sink_server.keys("t/eve/state")) == {"two"}

    from syncing.models import MappingRestore

    claimed = stack.claim("eve", pool)
    stack.exec(claimed["containerId"], "rm /state/two; echo 3 > /state/three")
    MappingRestore.objects.filter(tenant_id="eve", generation=claimed["generation"]).delete()
    stack.release("eve")

    assert set(sink_server.keys("t/eve/state")) == {"two", "three"}
    run = SyncRun.objects.filter(tenant_id="eve", direction="upload").latest("created_at")
    assert run.deletes == "withheld"


@pytest.mark.any_database
def test_a_bucket_that_lost_the_state_is_not_taken_for_a_first_time(stack, pools, sink_server):
    """An empty answer is a first time only if nothing was ever saved."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("fay", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/one")
    stack.release("fay")
    sink = sink_server.sink()
    for key in sink_server.keys():
        sink.delete(key)

    stack.problem("POST", "tenants/fay/claim", {"poolId": pool}, 502, "state_missing")
    eventually(lambda: not stack.status("fay")["assigned"])


@pytest.mark.any_database
def test_a_restore_that_lacks_a_file_fails_the_claim(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("gus", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/one; echo 2 > /state/two")
    stack.release("gus")
    sink_server.sink().delete("t/gus/state/one")

    stack.problem("POST", "tenants/gus/claim", {"poolId": pool}, 502, "restore_failed")
    eventually(lambda: not stack.status("gus")["assigned"])


@pytest.mark.any_database
def test_a_newer_claims_save_is_not_overwritten_by_an_older_one(stack, pools, sink_server):
    """The marker says that a newer generation has written; the older save fails and keeps its state (P6)."""
    import dataclasses

    from syncing.locations import marker_key
    from syncing.markers import Marker

    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("hew", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/one")
    stack.release("hew")
    claimed = stack.claim("hew", pool)
    sink, key = sink_server.sink(), marker_key("t/hew/state")
    marker = Marker.load(sink.get(key, 15))
    sink.put(key, dataclasses.replace(marker, generation=claimed["generation"] + 1).dump())
    found = stack.problem("POST", "tenants/hew/release", {}, 502, "save_failed")

    assert "remote_changed" in found["detail"]
    stack.release("hew", discard=True)
    raised = stack.claim("hew", pool)  # the next generation lies above the marker's
    assert raised["generation"] > claimed["generation"] + 1


def test_sync_on_demand_saves_a_running_container(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE))
    claimed = stack.claim("ivy", pool)
    stack.exec(claimed["containerId"], "echo 1 > /state/one")
    (run,) = stack.ok("POST", "tenants/ivy/sync", {"direction": "outward"}, 202)["runs"]
    eventually(lambda: SyncRun.objects.get(pk=run["id"]).state == "succeeded")
    assert set(sink_server.keys("t/ivy/state")) == {"one"}

    stack.exec(claimed["containerId"], "echo changed > /state/one; echo 2 > /state/two")
    (run,) = stack.ok("POST", "tenants/ivy/sync", {"direction": "inward"}, 202)["runs"]
    eventually(lambda: SyncRun.objects.get(pk=run["id"]).state == "succeeded")
    assert stack.exec(claimed["containerId"], "cat /state/one /state/two") == "1\n2\n"
    assert stack.status("ivy")["syncStatus"]["lastSync"]


@pytest.mark.any_database
def test_a_worker_killed_in_the_middle_of_a_save_loses_nothing(stack, pools, sink_server):
    """The worker dies while rclone runs; another takes the release over and finishes it (P8)."""
    pool = pools(sink=sink_server.json(STATE), warm=1, maxSize=2)
    claimed = stack.claim("jon", pool)
    stack.exec(claimed["containerId"], "for i in $(seq 300); do head -c 20000 /dev/urandom > /state/f$i; done")
    before = stack.exec(claimed["containerId"], "cd /state; sha256sum * | sha256sum")
    answer = stack.call("POST", "tenants/jon/release?timeoutMs=1", {})
    assert answer.status_code == 202
    eventually(lambda: SyncRun.objects.filter(tenant_id="jon", direction="upload", state="running").exists(), 20, 0.005)
    for worker in Process.objects.filter(kind="worker", pk__in=processes.living()):
        os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not stack.status("jon")["assigned"], 40)

    again = stack.claim("jon", pool)
    assert stack.exec(again["containerId"], "cd /state; sha256sum * | sha256sum") == before
    assert SyncRun.objects.filter(tenant_id="jon", error_code="interrupted").exists()
    assert SavedState.objects.get(tenant_id="jon").files == 300


def test_a_worker_killed_while_it_prepares_a_claim_leaves_nothing_behind(stack, pools, sink_server):
    """The claim is carried on by another worker or given up; never half (P7)."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    claimed = stack.claim("kat", pool)
    stack.exec(claimed["containerId"], "for i in $(seq 300); do head -c 20000 /dev/urandom > /state/f$i; done")
    before = stack.exec(claimed["containerId"], "cd /state; sha256sum * | sha256sum")
    stack.release("kat")
    import threading

    answers = []
    call = threading.Thread(target=lambda: answers.append(stack.call("POST", "tenants/kat/claim", {"poolId": pool})))
    call.start()
    eventually(
        lambda: SyncRun.objects.filter(tenant_id="kat", direction="download", state="running").exists(), 20, 0.005
    )
    for worker in Process.objects.filter(kind="worker", pk__in=processes.living()):
        os.kill(worker.pid, signal.SIGKILL)
    call.join()

    assert answers[0].status_code == 201, answers[0].text
    got = answers[0].json()
    assert stack.exec(got["containerId"], "cd /state; sha256sum * | sha256sum") == before


def test_after_all_of_it_no_lease_or_directory_is_left_over(stack, pools, sink_server):
    pool = pools(sink=sink_server.json(STATE))
    stack.claim("zoe", pool)
    stack.release("zoe")

    def tidy() -> bool:
        known = {str(pk) for pk in Container.objects.values_list("pk", flat=True)}
        kept = {str(r) for r in Assignment.objects.live().values_list("container_ref", flat=True)}
        quarantined = {path.parent.name for path in volumes.containers_dir().glob("*/claimed")}
        on_disk = {path.name for path in volumes.containers_dir().iterdir()}
        uids = HostLease.objects.filter(resource__startswith="uid ").values_list("container_id", flat=True)
        accounted = known | kept | quarantined
        return on_disk <= accounted and {str(u) for u in uids} <= accounted

    eventually(tidy, 30)
