"""The upgrade of a database whose deployment row counts uids and addresses, while old processes still run."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import IntegrityError, OperationalError

from boilerhouse.core import deployment
from pools import host
from pools.models import HostCounter, HostLease
from pools.runtime.base import Network

BEFORE = [("core", "0008_nodes"), ("pools", "0013_nodes")]
NETWORK = Network("net", "br", "10.64.0.0/16", "10.64.0.1")
EACH = 12
pytestmark = [pytest.mark.any_database, pytest.mark.django_db(transaction=True)]


def upgraded_from(uid: int, address: int) -> None:
    """The tables of today, after the old code had assigned everything up to these."""
    latest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    MigrationExecutor(connection).migrate(BEFORE)
    try:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE core_deployment SET next_uid = %s, next_address = %s", [uid, address])
    finally:
        MigrationExecutor(connection).migrate(latest)


@pytest.fixture
def upgrade(data_dir: Path) -> None:
    """A lease that the old code gave, and its counters behind it."""
    deployment.register_node()
    HostLease.objects.create(resource="uid 200041", container_id=uuid4())
    upgraded_from(200_042, 41)


def columns() -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT next_uid, next_address FROM core_deployment")
        uid, address = cursor.fetchone()
    return uid, address


def test_what_is_assigned_next_comes_after_what_was_assigned(upgrade):
    """B.1: nothing that the old code assigned lately is assigned again; its own counters stay for it."""
    assert columns() == (200_042, 41)
    with transaction.atomic():
        assert host.lease_uid(uuid4()) > 200_042
        first = host.lease_address(NETWORK, uuid4())
    assert [int(part) for part in first.split(".")][:2] == [10, 64]
    assert HostCounter.objects.get(pk="address").position > 41


@pytest.mark.usefixtures("data_dir")
def test_counters_at_the_end_of_their_ranges_begin_anew():
    """B.1: the range has an end, also for the step that the migration takes."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    upgraded_from(high - 1, 1 << 16)
    with transaction.atomic():
        uids = [host.lease_uid(uuid4()) for _ in range(3)]
        host.lease_address(NETWORK, uuid4())
    assert all(low <= uid < high for uid in uids)
    assert len(set(uids)) == 3


@pytest.mark.usefixtures("upgrade")
def test_going_back_gives_the_counters_back():
    """B.1: within one release, the old code runs on the new tables; and a migration can be undone."""
    with transaction.atomic():
        uid = host.lease_uid(uuid4())
    MigrationExecutor(connection).migrate(BEFORE)
    try:
        assert columns()[0] == uid + 1
    finally:
        MigrationExecutor(connection).migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())


def leased_by_the_old_code(container_id: UUID) -> int:
    """As the version before did it, in its columns."""
    with connection.cursor() as cursor:
        lock = " FOR UPDATE" if connection.vendor == "postgresql" else ""
        cursor.execute(f"SELECT next_uid FROM core_deployment{lock}")
        (uid,) = cursor.fetchone()
        while HostLease.objects.filter(pk=f"uid {uid}").exists():
            uid += 1
        HostLease.objects.create(resource=f"uid {uid}", container_id=container_id, node_id=deployment.node_id())
        cursor.execute("UPDATE core_deployment SET next_uid = %s", [uid + 1])
    return int(uid)


@pytest.mark.parametrize("is_met", [False, True], ids=["apart", "at the same uids"])
@pytest.mark.usefixtures("upgrade")
def test_nothing_is_assigned_twice_while_old_and_new_processes_assign(is_met):
    """B.1: a rolling upgrade; also if the old code's counter has come to where the new one's is."""
    if is_met:
        HostCounter.objects.filter(pk="uid").update(position=200_042)
    start = threading.Barrier(4)
    uids: list[int] = []

    def assign(lease: object, may_fail: bool) -> None:
        try:
            start.wait()
            for _ in range(EACH):
                try:
                    with transaction.atomic():
                        uids.append(lease(uuid4()))  # type: ignore[operator]
                except (IntegrityError, OperationalError):  # the old code fails a step, which is repeated
                    assert may_fail
        finally:
            connection.close()

    kinds = [(host.lease_uid, False), (host.lease_uid, False), (leased_by_the_old_code, True)]
    kinds.append((leased_by_the_old_code, True))
    threads = [threading.Thread(target=assign, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(uids) == len(set(uids)), sorted(uids)
    assert len(uids) >= 2 * EACH
    assert HostLease.objects.filter(resource__in=[f"uid {uid}" for uid in uids]).count() == len(uids)


@pytest.mark.usefixtures("data_dir")
def test_the_first_of_a_new_deployment_are_assigned_once_when_two_begin_at_once():
    """B.1: a new deployment has no counter until the first container; two processes create it together."""
    assert not HostCounter.objects.exists()
    start, uids = threading.Barrier(4), list[int]()

    def assign() -> None:
        try:
            start.wait()
            with transaction.atomic():
                uids.append(host.lease_uid(uuid4()))
        finally:
            connection.close()

    threads = [threading.Thread(target=assign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(uids) == [200_000, 200_001, 200_002, 200_003]
