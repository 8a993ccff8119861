"""Random operations, crashes and losses: P1, P2 and P7 hold after each, and the deployment recovers (P8).

Rows, files, latches and locks are real; the engine is a fake one, the processes die by an exception that nothing
catches. The same with real processes and a real engine is in ``tests/stack``.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from boilerhouse.controller import controller
from boilerhouse.core import deployment, failpoints
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Deployment, Node, Process
from boilerhouse.process import processes
from pools import firewall, lifecycle, nodes, reconcile, services, volumes
from pools.models import Container, HostLease, Pool
from pools.runtime import get_runtime
from pools.states import DEADLY, ContainerState
from tenants import claims, releases, upkeep, validation
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests.fake_runtime import FakeRuntime
from tests.make import make_pool, make_spec, make_workload
from tests.power_cut import PowerCut
from tests.runtimes import runtime_setting

TENANTS = ["ann", "bob", "cem", "dee"]
PLACES = [
    "fill.inserted", "fill.prepared", "engine.created", "fill.created", "fill.started", "fill.healthy",
    "destroy.removed", "destroy.wiped", "claim.taken", "claim.latched", "claim.provisioned", "claim.decided",
    "release.fenced", "release.stopped", "release.saved", "release.destroyed", "release.wiped",
]  # fmt: skip
MAX_SIZE = 3


def power_cut() -> None:
    failpoints.hooks.clear()
    raise PowerCut


class Anything(RuleBasedStateMachine):
    runtime: FakeRuntime
    patches: pytest.MonkeyPatch
    directory: Path

    def __init__(self) -> None:
        super().__init__()
        from django.conf import settings as django_settings

        for model in (OrmQ, Assignment, Tenant, Container, Pool, HostLease, Process, Node, Deployment):
            model.objects.all().delete()
        self.directory = Path(tempfile.mkdtemp())
        self.patches = pytest.MonkeyPatch()
        for name, value in {
            "BOILERHOUSE_DATA_DIR": self.directory, "BOILERHOUSE_RAM_DIR": str(self.directory / "ram"),
            "BOILERHOUSE_ORPHAN_GRACE_S": -1, "BOILERHOUSE_DISK_FLOOR_MB": 1, "BOILERHOUSE_RUNTIME": runtime_setting(FakeRuntime),
        }.items():  # fmt: skip
            self.patches.setattr(django_settings, name, value)
        self.runtime = get_runtime()
        self.patches.setattr(firewall, "apply", lambda network: None)
        self.patches.setattr(nodes.Host, "ensure_ram_dir", lambda: self.directory / "ram")
        # The clock of these tests is steps, not seconds.
        self.patches.setattr(controller, "STUCK_AFTER", timedelta(0))
        self.patches.setattr(upkeep.orphans, "ORPHANED_AFTER", timedelta(0))
        self.patches.setattr(upkeep.containers, "QUARANTINE_AFTER", timedelta(0))
        self.patches.setattr(reconcile, "VANISHED_AFTER", timedelta(0))
        deployment._checked.cache_clear()
        deployment._node_id.cache_clear()
        (self.directory / "ram").mkdir()
        self.workload = make_workload()
        self.pool = make_pool(workload=self.workload, min_size=2, max_size=MAX_SIZE, target_size=2)
        self.versions = 1
        self.overshoot: list[str] = []
        self.begun: list[claims.Begun] = []

    def teardown(self) -> None:
        try:
            self.calm_down()
        finally:
            failpoints.hooks.clear()
            processes.stop_heartbeat()
            self.patches.undo()
            deployment._checked.cache_clear()
            deployment._node_id.cache_clear()
            shutil.rmtree(self.directory, ignore_errors=True)

    # What a process does ----------------------------------------------------------------------------

    def alive(self, work) -> None:
        """Run ``work`` as a process that may be killed at any step."""
        before = len(self.runtime.containers)
        try:
            work()
        except PowerCut:
            if connection.in_atomic_block:
                connection.close()
            dead = processes._current
            processes.stop_heartbeat()
            if dead:
                Process.objects.filter(pk=dead[1]).update(heartbeat_at=timezone.now() - timedelta(minutes=1))
        except BoilerhouseError:
            pass
        finally:
            failpoints.hooks.clear()
        if len(self.runtime.containers) > max(before, MAX_SIZE):
            self.overshoot.append(f"{len(self.runtime.containers)} containers")

    def arm(self, place: str | None) -> None:
        failpoints.hooks.clear()
        if place:
            failpoints.hooks[place] = power_cut

    def run_one(self, message: OrmQ) -> None:
        import importlib

        task = message.task
        message.delete()
        module, _, name = task["func"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        self.alive(lambda: function(*task["args"]))

    # Rules --------------------------------------------------------------------------------------------

    @rule(tenant=st.sampled_from(TENANTS), place=st.none() | st.sampled_from(PLACES))
    def claim(self, tenant, place):
        self.arm(place)
        self.alive(lambda: self.begun.append(claims.begin(validation.Claim(tenant, self.pool.pk))))

    @rule(tenant=st.sampled_from(TENANTS), place=st.none() | st.sampled_from(PLACES), discard=st.booleans())
    def release(self, tenant, place, discard):
        self.arm(place)
        self.alive(lambda: releases.begin(tenant, discard=discard))

    @rule(count=st.integers(1, 6), place=st.none() | st.sampled_from(PLACES), seed=st.integers(0, 99))
    def work(self, count, place, seed):
        """Workers take messages in any order; one of them may be killed."""
        for number in range(count):
            messages = list(OrmQ.objects.order_by("id"))
            if not messages:
                return
            self.arm(place if number == count - 1 else None)
            self.run_one(random.Random(seed + number).choice(messages))

    @rule(seed=st.integers(0, 99))
    @precondition(lambda self: OrmQ.objects.exists())
    def a_message_is_lost(self, seed):
        random.Random(seed).choice(list(OrmQ.objects.all())).delete()

    @rule(seed=st.integers(0, 99))
    @precondition(lambda self: OrmQ.objects.exists())
    def a_message_comes_twice(self, seed):
        message = random.Random(seed).choice(list(OrmQ.objects.all()))
        OrmQ.objects.create(key=message.key, payload=message.payload, lock=message.lock)

    @rule(place=st.none() | st.sampled_from(PLACES))
    def controller_acts(self, place):
        self.arm(place)
        self.alive(self.all_steps)

    @rule(seed=st.integers(0, 99), how=st.sampled_from(["exited", "gone"]))
    @precondition(lambda self: self.runtime.containers)
    def a_container_ends(self, seed, how):
        name = random.Random(seed).choice(sorted(self.runtime.containers))
        if how == "gone":
            del self.runtime.containers[name]
        else:
            self.runtime.containers[name].status = "exited"

    @rule(down=st.booleans())
    def the_engine_goes_and_comes(self, down):
        self.runtime.is_down = down

    @rule(size=st.integers(0, MAX_SIZE))
    def scale(self, size):
        self.alive(lambda: services.scale(self.pool.pk, size))

    @rule(is_good=st.booleans())
    def a_new_version(self, is_good):
        self.the_workload_changes(is_good)

    def the_workload_changes(self, is_good: bool) -> None:
        self.versions += 1
        image = f"image:{self.versions}"
        if not is_good:
            self.runtime.broken_images.add(image)
        spec = make_spec(image=image)
        self.alive(lambda: services.update_workload(self.workload, name="w", spec=spec))

    # What must hold -----------------------------------------------------------------------------------

    @invariant()
    def p1_one_tenant_per_container_for_its_whole_life(self):
        held = Assignment.objects.filter(state=AssignmentState.ASSIGNED)
        for row in held:
            latch = volumes.read_latch(row.held_container)
            assert latch, "assigned without a latch"
            assert f'"{row.tenant_id}"' in latch
            assert str(row.generation) in latch
        refs = [ref for ref in Assignment.objects.live().values_list("container_ref", flat=True) if ref]
        assert len(refs) == len(set(refs))
        for pk in Container.objects.idle().values_list("pk", flat=True):
            assert volumes.read_latch(pk) is None, "a used container stands as idle"

    @invariant()
    def p2_never_more_than_max_size(self):
        assert not self.overshoot
        assert Container.objects.filter(pool=self.pool).count() <= MAX_SIZE

    @invariant()
    def p7_an_error_holds_nothing(self):
        for row in Assignment.objects.filter(state=AssignmentState.ENDED).exclude(
            outcome__in=["released", "discarded"]
        ):
            assert not Assignment.objects.filter(pk=row.pk, was_assigned=True).exists()
            if row.container_ref:
                assert not Container.objects.idle().filter(pk=row.container_ref).exists()

    # The end ------------------------------------------------------------------------------------------

    def all_steps(self) -> None:
        controller._sent.clear()
        upkeep.orphans.tried.clear()
        for step in (
            upkeep.serve_waiters, upkeep.abort_overdue_claims, upkeep.resume_claims, upkeep.resume_releases,
            upkeep.retry_failed_saves, upkeep.release_dead, upkeep.retire_unheld, upkeep.find_lost,
            controller.fill_pools, controller.resume_containers,
        ):  # fmt: skip
            try:
                step()
            except BoilerhouseError:
                continue
        try:
            reconcile.heal(upkeep.held_containers())
        except BoilerhouseError:
            reconcile.engine_is_down("down")
        else:
            reconcile.engine_is_back()
            upkeep.release_dead()

    def calm_down(self) -> None:
        """After all failures end and time passes, nothing is left over."""
        self.runtime.is_down = False
        if self.runtime.broken_images:
            self.the_workload_changes(True)
        Assignment.objects.filter(state=AssignmentState.PENDING).update(deadline=timezone.now() + timedelta(hours=1))
        for _ in range(60):
            Pool.objects.update(next_start_at=None)
            Container.objects.update(keep_until=None)
            Assignment.objects.update(next_attempt_at=None)
            while (message := OrmQ.objects.order_by("id").first()) is not None:
                self.run_one(message)
            if self.is_calm():
                break
            self.alive(self.all_steps)
            time.sleep(0.001)
        assert self.is_calm(), self.describe()
        self.p1_one_tenant_per_container_for_its_whole_life()
        self.p2_never_more_than_max_size()
        rows = {lifecycle.runtime_name(pk) for pk in Container.objects.values_list("pk", flat=True)}
        quarantined = {
            lifecycle.runtime_name(pk) for pk in volumes.on_disk()
            if volumes.read_latch(pk) and not Container.objects.filter(pk=pk).exists()
        }  # fmt: skip
        assert set(self.runtime.containers) - quarantined == rows, self.describe()
        assert {lifecycle.runtime_name(pk) for pk in volumes.on_disk()} - quarantined == rows, self.describe()
        leased = set(HostLease.objects.filter(resource__startswith="uid ").values_list("container_id", flat=True))
        assert {lifecycle.runtime_name(pk) for pk in leased} - quarantined == rows, self.describe()

    def is_calm(self) -> bool:
        under_way = [AssignmentState.RELEASING, AssignmentState.RELEASE_FAILED]
        if Assignment.objects.filter(state__in=under_way).exists() or OrmQ.objects.exists():
            return False
        if Container.objects.exclude(state__in=[ContainerState.IDLE, ContainerState.CLAIMED]).exists():
            return False
        if Container.objects.filter(fault__in=DEADLY).exists():
            return False
        pool = Pool.objects.with_counts().get()
        status = pool.status()
        waits = Assignment.objects.filter(state=AssignmentState.PENDING, container_ref=None).count()
        if Assignment.objects.filter(state=AssignmentState.PENDING).exclude(container_ref=None).exists():
            return False
        if waits != status.waiting or (waits and status.claimed < MAX_SIZE):
            return False
        if status.idle + status.claimed != status.desired_size:
            return False
        return not reconcile_kinds()

    def describe(self) -> str:
        return "\n".join(
            [
                f"pool {Pool.objects.with_counts().get().status()}",
                *(f"container {c.pk} {c.state} {c.fault} owner={c.owner} {c.error}" for c in Container.objects.all()),
                *(
                    f"assignment {a.tenant_id} {a.state} {a.step} {a.outcome} {a.container_ref} owner={a.owner}"
                    for a in Assignment.objects.live()
                ),
                f"engine {[(n, c.status) for n, c in self.runtime.containers.items()]}",
                f"disk {list(volumes.on_disk())}",
                f"drift {[(d.kind, d.subject, d.detail) for d in reconcile.find_drift(upkeep.held_containers())]}",
                f"leases {list(HostLease.objects.values_list('resource', 'container_id', 'released_at'))}",
            ]
        )


def reconcile_kinds() -> set[str]:
    return {drift.kind for drift in reconcile.find_drift(upkeep.held_containers()) if drift.heal}


def test_whatever_happens_nothing_is_shared_lost_or_left_over(transactional_db):
    Anything.TestCase.settings = settings(
        max_examples=400 if os.environ.get("BOILERHOUSE_LONG") else 25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck),
        print_blob=True,
    )  # fmt: skip
    run_state_machine_as_test(Anything, settings=Anything.TestCase.settings)
