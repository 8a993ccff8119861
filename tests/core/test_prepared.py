"""Selections that are built once per connection do what their query sets do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.db.models import F, QuerySet
from django.test.utils import CaptureQueriesContext

from boilerhouse.core import prepared
from boilerhouse.core.ids import uuid7
from boilerhouse.core.prepared import Given
from pools.models import Pool
from syncing import services
from syncing.models import SyncMapping
from tenants import claims, preparation
from tenants.models import Assignment
from tests.make import make_assignment, make_container, make_pool, make_sync_spec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]


def attributes(instance):
    return {name: value for name, value in vars(instance).items() if name != "_state"}


def test_an_instance_equals_that_of_the_query_set_with_its_relations():
    pool = make_pool()
    other = make_pool()
    for own in (pool, other):
        read = claims._pool.first(id=own.pk)
        same = Pool.objects.select_related("workload", "good_version").get(pk=own.pk)
        with CaptureQueriesContext(connection) as queries:
            assert attributes(read) == attributes(same)
            assert attributes(read.workload) == attributes(same.workload)
            assert read.good_version == same.good_version
        assert not queries
    assert claims._pool.first(id="nowhere") is None


def test_mappings_to_restore_have_their_spec_and_its_credential():
    spec = make_sync_spec()
    make_sync_spec()
    query = SyncMapping.objects.filter(spec__pool_id=spec.pool_id, spec__on_claim=True)
    same = list(query.select_related("spec__credential").order_by("spec_id", "position"))
    with CaptureQueriesContext(connection) as queries:
        read = services.mappings_to_restore(spec.pool_id)
        assert [attributes(mapping.spec) for mapping in read] == [attributes(mapping.spec) for mapping in same]
        assert [mapping.spec.credential for mapping in read] == [None] * len(same)
    assert len(queries) == 1
    assert read == same != []


def test_it_reads_the_rows_of_the_moment():
    assignment = make_assignment("alice", container=make_container())
    assert claims._live.exists(tenant="alice")
    assert not claims._live.exists(tenant="bob")
    Assignment.objects.filter(pk=assignment.pk).delete()
    assert not claims._live.exists(tenant="alice")
    pool = make_pool()
    assert claims._pool.first(id=pool.pk).min_idle == pool.min_idle
    Pool.objects.filter(pk=pool.pk).update(min_idle=F("min_idle") + 1, max_size=F("max_size") + 1)
    assert claims._pool.first(id=pool.pk).min_idle == pool.min_idle + 1


def test_a_claim_is_pending_until_its_deadline_in_its_generation():
    assignment = make_assignment("alice", container=make_container(), state=claims.PENDING)
    own = {"id": assignment.pk, "generation": assignment.generation}
    assert preparation._pending.exists(**own, now=assignment.created_at)
    assert not preparation._pending.exists(**own, now=assignment.deadline)
    assert not preparation._pending.exists(**{**own, "id": uuid7()}, now=assignment.created_at)
    assert not preparation._pending.exists(**{**own, "generation": 0}, now=assignment.created_at)


def test_it_is_built_once_for_each_connection():
    built = []

    @prepared.selection
    def by_id() -> QuerySet[Pool]:
        built.append(connection.connection)
        return Pool.objects.filter(pk=Given("id", Pool._meta.pk))

    pool = make_pool()
    assert [by_id.first(id=pool.pk), by_id.first(id="x"), by_id.all(id=pool.pk)] == [pool, None, [pool]]
    assert len(built) == 1

    def elsewhere(_):
        try:
            return by_id.first(id="x"), by_id.first(id="y")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        assert list(thread.map(elsewhere, range(3))) == [(None, None)] * 3
    assert len(built) == 2


def test_a_value_that_is_missing_or_of_the_wrong_type_is_refused():
    with pytest.raises(KeyError):
        claims._pool.first()
    with pytest.raises((ValueError, TypeError)):
        preparation._pending.exists(id=uuid7(), generation="many", now=None)
