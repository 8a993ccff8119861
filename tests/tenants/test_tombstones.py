"""What stays of a removed container: who reads it, how large it becomes, when it goes, and that no removal waits."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from boilerhouse.core import events
from pools import errors, lifecycle, tombstones
from pools.models import Container, ContainerUsage, LastOutput, Tombstone
from pools.nodes import here
from pools.states import ContainerState
from tenants import releases, state_erasure
from tests.fake_engine_rows import hold
from tests.fake_runtime import Line
from tests.make import make_container, make_pool

pytestmark = pytest.mark.any_database
CANARY = "LAST-WORDS-CANARY"


def write(engine, container_id, *lines: str) -> None:
    found = engine.containers[lifecycle.runtime_name(container_id)]
    found.lines += [Line(time.time(), f"{line}\n".encode(), False) for line in lines]


def release(held) -> None:
    releases.begin(held.tenant_id)
    releases.finish(held.pk)
    held.refresh_from_db()


@pytest.fixture
def pool(saving_pool):
    return saving_pool


@pytest.fixture
def gone(pool, fake_engine) -> Tombstone:
    """Alice's container has been released."""
    held = hold(pool, fake_engine, "alice")
    write(fake_engine, held.held_container, *(f"line {number} {CANARY}" for number in range(700)))
    ContainerUsage.objects.create(
        container_id=held.held_container, at=timezone.now(), cpu_ns=10**9, memory_bytes=5_000_000, pids=1
    )
    release(held)
    assert held.state == "ended"
    return Tombstone.objects.get(pk=held.container_ref)


def test_it_keeps_the_facts_the_last_lines_and_the_last_samples(gone, pool):
    assert not Container.objects.filter(pk=gone.pk).exists()
    assert (gone.pool_id, gone.tenant_id, gone.version) == (pool.pk, "alice", 1)
    assert gone.exit_code is not None
    lines = tombstones.log_of(gone).decode().splitlines()
    assert len(lines) == tombstones.LINES
    assert lines[-1].endswith(f"line 699 {CANARY}")
    assert [memory for _, _, memory in tombstones.usage_of(gone)] == [5_000_000]
    assert tombstones.ending_with(gone.pk.hex[-8:], 5) == [gone.pk]
    assert tombstones.ending_with(f"{gone.pk.hex[-6:]}ff", 5) == []


def test_its_log_is_encrypted_at_rest(gone):
    with connection.cursor() as cursor:
        for table in ("pools_tombstone", "pools_lastoutput"):
            cursor.execute(f"SELECT * FROM {table}")
            assert CANARY not in str(cursor.fetchall())


def test_bytes_are_limited_too(pool, fake_engine):
    held = hold(pool, fake_engine, "alice")
    write(fake_engine, held.held_container, *("x" * 9_000 for _ in range(40)))
    release(held)
    assert len(tombstones.log_of(Tombstone.objects.get(pk=held.container_ref))) <= tombstones.LINES_BYTES


def test_nothing_of_an_erased_tenant_remains(gone, pool, fake_engine):
    other = hold(pool, fake_engine, "bob")
    write(fake_engine, other.held_container, "of bob")
    release(other)
    state_erasure.begin("alice")
    assert [row.tenant_id for row in Tombstone.objects.all()] == ["bob"]
    assert [row.pk for row in LastOutput.objects.all()] == [other.container_ref]
    assert not ContainerUsage.objects.filter(container_id=gone.pk).exists()


def test_a_process_that_was_overtaken_leaves_nothing_of_an_erased_tenant(pool, fake_engine, monkeypatch):
    """It has read the log, and writes it when another has completed the release and the tenant was erased."""
    held = hold(pool, fake_engine, "alice")
    write(fake_engine, held.held_container, CANARY)
    really = fake_engine.logs
    overtaken = []

    def logs(*arguments, **options):
        lines = really(*arguments, **options)
        if not overtaken:
            overtaken.append(True)
            release(held)
            assert held.state == "ended"
            state_erasure.begin("alice")
        return lines

    monkeypatch.setattr(fake_engine, "logs", logs)
    tombstones.take(here(), held.held_container)
    assert overtaken
    assert not Tombstone.objects.exists()
    assert not LastOutput.objects.exists()


@pytest.mark.parametrize("error", [errors.EngineUnavailable("It hangs."), RuntimeError("a defect")])
def test_a_removal_succeeds_without_a_log(pool, fake_engine, monkeypatch, error):
    """An engine that gives no log, and any defect of ours, cost the log and nothing else."""
    held = hold(pool, fake_engine, "alice")

    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(fake_engine, "logs", fail)
    release(held)
    assert (held.state, held.outcome) == ("ended", "released")
    gone = Tombstone.objects.get(pk=held.container_ref)
    assert tombstones.log_of(gone) == b""


def test_the_engine_is_asked_with_a_deadline_and_outside_a_transaction(pool, fake_engine, monkeypatch):
    held = hold(pool, fake_engine, "alice")
    really, asked = fake_engine.logs, []

    def logs(*arguments, **options):
        asked.append((options["timeout_s"], events.is_recording(), connection.in_atomic_block))
        return really(*arguments, **options)

    monkeypatch.setattr(fake_engine, "logs", logs)
    release(held)
    assert asked == [(tombstones.WITHIN_S, False, False)]


def test_a_container_that_never_became_ready_is_kept_too(data_dir, transactional_db, fake_engine):
    pool = make_pool()
    container = make_container(pool, state=ContainerState.FAILED, error="It ended immediately with exit code 3.")
    lifecycle.destroy_container(container.pk)
    gone = Tombstone.objects.get(pk=container.pk)
    assert (gone.tenant_id, gone.error, gone.was_ready) == ("", container.error, False)
    assert not Container.objects.filter(pk=container.pk).exists()


def fill(tenant_id: str, count: int, *, size: int = 1000, days: float = 0.0) -> list[Tombstone]:
    pool, made = make_pool(), []
    for _ in range(count):
        container = make_container(pool)
        tombstones._write(container, tenant_id=tenant_id)
        at = timezone.now() - timedelta(days=days)
        Tombstone.objects.filter(pk=container.pk).update(at=at)
        LastOutput.objects.create(tombstone_id=container.pk, log="", size=size, at=at)
        made.append(Tombstone.objects.get(pk=container.pk))
    return made


def test_one_tenant_and_one_pool_keep_few_outputs(data_dir, transactional_db, monkeypatch):
    monkeypatch.setattr(tombstones, "OUTPUTS_PER_TENANT", 3)
    monkeypatch.setattr(tombstones, "OUTPUTS_PER_POOL", 2)
    fill("bob", 5)
    (pool_id,) = {row.pool_id for row in fill("alice", 5)}
    loose = fill("", 5)
    tombstones._limit(pool_id, "alice")
    tombstones._limit(loose[0].pool_id, "")
    kept = LastOutput.objects.values_list("tombstone__tenant_id", flat=True)
    assert sorted(kept) == ["", "", *["alice"] * 3, *["bob"] * 5]
    assert Tombstone.objects.count() == 15


def test_they_go_with_the_retention_of_events_and_outputs_above_the_limit_before(data_dir, transactional_db, settings):
    old, new = fill("alice", 2, days=400), fill("bob", 4)
    settings.BOILERHOUSE_LAST_OUTPUTS_MAX_BYTES = 2500
    tombstones.forget_old()
    assert not Tombstone.objects.filter(pk__in=[row.pk for row in old]).exists()
    assert Tombstone.objects.count() == len(new)
    assert list(LastOutput.objects.order_by("at").values_list("pk", flat=True)) == [row.pk for row in new[2:]]
    settings.BOILERHOUSE_LAST_OUTPUTS_MAX_BYTES = 0
    tombstones.forget_old()
    assert not LastOutput.objects.exists()
