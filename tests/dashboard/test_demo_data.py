"""Demo data are whole, the same for the same seed, go as they came, and no process acts on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db.models import Count, Max
from django.utils import timezone

from boilerhouse.core import api_keys, deployment
from boilerhouse.core.events import emit
from boilerhouse.core.models import Event, Process, Role
from boilerhouse.dashboard.overview import pool_rows
from boilerhouse.operations.demo_data import filling
from boilerhouse.operations.demo_data.engine import DemoEngine
from boilerhouse.process import processes
from pools import nodes
from pools.host.identity import runtime_name
from pools.models import Container, ContainerUsage, Pool, PoolUsage, Workload
from syncing.models import SavedState, SyncRun
from tenants.models import Assignment, Tenant
from tenants.states import LIVE
from tests.make import make_pool, make_workload

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
NOW = datetime(2026, 11, 26, 15, 0, tzinfo=UTC)
BEFORE = {"core.Deployment", "core.Node", "core.Process"}
"""What a deployment has as soon as a command ran there."""


def rows() -> dict[str, list[dict[str, object]]]:
    """Every row of the apps, without the numbers that a database gives and without ciphertexts, which are salted."""
    found = {}
    for label in ("core", "notifications", "pools", "syncing", "tenants"):
        for model in apps.get_app_config(label).get_models():
            plain = [
                field.attname for field in model._meta.concrete_fields
                if not field.primary_key or field.get_internal_type() in ("CharField", "UUIDField")
                if field.attname not in ("private", "secret", "secrets", "mapping_id", "version_id", "updated_at")
                if not field.attname.endswith("_version_id") and field.attname != "pull_id"
            ]  # fmt: skip
            values = sorted(model._base_manager.values_list(*plain), key=repr)
            if values and model._meta.label not in BEFORE:
                found[model._meta.label] = values
    return found


def test_the_same_seed_makes_the_same_rows_and_remove_leaves_none(data_dir):
    filling.fill(7, NOW, days=1)
    first = rows()
    assert {"pools.Container", "tenants.Assignment", "core.Event", "syncing.SyncRun"} <= set(first)
    filling.remove()
    assert rows() == {}
    assert not filling.is_present()
    filling.fill(7, NOW, days=1)
    assert rows() == first


def test_another_seed_makes_other_rows(data_dir):
    filling.fill(8, NOW, days=0)
    first = list(Container.objects.values_list("pk", flat=True))
    filling.remove()
    filling.fill(9, NOW, days=0)
    assert not set(first) & set(Container.objects.values_list("pk", flat=True))


def test_what_others_made_meanwhile_stays(data_dir):
    filling.fill(days=0)
    mine = make_pool("mine", workload=Workload.objects.get(pk="notes"))
    api_keys.create_key(name="mine", role=Role.VIEWER)
    emit("pool.scaled", pool_id="notes", created=True)
    filling.remove()
    assert list(Pool.objects.all()) == [mine]
    assert [one.pk for one in Workload.objects.all()] == ["notes"]
    assert [one.name for one in api_keys.ApiKey.objects.all()] == ["mine"]
    assert Event.objects.filter(type="pool.scaled").count() == 1


def test_a_user_of_the_same_name_stays_as_it_is(data_dir):
    User.objects.create_superuser("kim")
    filling.fill(days=0)
    assert set(User.objects.values_list("username", flat=True)) == {"kim", "lee"}
    assert User.objects.get(username="kim").is_superuser
    filling.remove()
    assert [user.username for user in User.objects.all()] == ["kim"]


@pytest.mark.parametrize("own", [make_workload, lambda: api_keys.create_key(name="k", role=Role.VIEWER)])
def test_a_deployment_with_anything_of_its_own_is_refused(data_dir, own):
    own()
    before = rows()
    with pytest.raises(filling.NotEmpty):
        filling.fill()
    assert rows() == before


def test_a_running_deployment_is_refused(data_dir):
    Process.objects.filter(pk=processes.current()).update(kind=Process.Kind.CONTROLLER, heartbeat_at=timezone.now())
    with pytest.raises(filling.NotEmpty, match="controller"):
        filling.fill()


def test_no_process_starts_that_would_act_on_them(data_dir):
    filling.fill(days=0)
    with pytest.raises(deployment.HasDemoData):
        deployment.check_node()
    for command in ("up", "run_worker", "run_controller"):
        with pytest.raises(CommandError, match="--remove"):
            call_command(command, skip_checks=True)
    filling.remove()
    deployment.check_node()


def test_the_rows_agree_with_each_other(data_dir):
    """Pages contradict themselves where counts and rows differ."""
    filling.fill(1, NOW)
    assert Pool.objects.count() == 5
    assert Tenant.objects.count() == 24
    for row in pool_rows():
        held = Assignment.objects.filter(pool=row.pool, state__in=LIVE, container__isnull=False)
        assert row.status.claimed == held.count()
        assert row.status.size <= row.pool.max_size
        newest = PoolUsage.objects.filter(pool=row.pool).latest("at")
        assert newest.claimed == row.status.claimed
        unsaved = Assignment.objects.filter(pool=row.pool, state="release_failed")
        assert unsaved.count() == row.pool.release_failed
    overlapping = Assignment.objects.filter(state__in=LIVE).values("tenant").annotate(n=Count("pk")).filter(n__gt=1)
    assert not overlapping
    for tenant in Tenant.objects.all():
        ended = tenant.assignments.aggregate(last=Max("ended_at"))["last"]
        live = tenant.assignments.filter(state__in=LIVE).first()
        assert not (live and ended) or live.created_at > ended
    for saved in SavedState.objects.all():
        assert SyncRun.objects.get(pk=saved.run_id).state == "succeeded"
    assert {event.is_routine for event in Event.objects.filter(type__in=["sync.started", "container.created"])} == {
        True
    }
    saves = Event.objects.filter(type="sync.completed")
    assert {event.is_routine for event in saves} == {True, False}
    assert all(not (event.is_routine and event.payload["sentBytes"]) for event in saves)
    late = [
        PoolUsage.objects.latest("at").at,
        ContainerUsage.objects.latest("at").at,
        Event.objects.latest("id").created_at,
    ]
    assert all(NOW - timedelta(minutes=2) < at <= NOW for at in late)


def test_every_page_shows_them(admin_client, data_dir, settings):
    settings.BOILERHOUSE_RUNTIME = {"BACKEND": "boilerhouse.operations.demo_data.engine.DemoEngine", "OPTIONS": {}}
    filling.fill(days=1)
    filling.beat()
    run = SyncRun.objects.failed().first()
    container = Container.objects.filter(state="claimed").first()
    assert run
    assert container
    assert b"GET /" in nodes.node_of(container).runtime.logs(runtime_name(container.pk), 500)
    paths = ["/", "/pools/", "/tenants/", "/sync/", "/activity/", "/workloads/", "/settings/", "/settings/changes/"]
    paths += [f"/pools/{pool.pk}/?tab={tab}" for pool in Pool.objects.all() for tab in ("", "usage", "configuration")]
    paths += [f"/tenants/{tenant.pk}/" for tenant in Tenant.objects.all()]
    paths += [f"/containers/{container.pk}/", f"/sync/runs/{run.pk}/", "/sync/specs/build-cache/", "/workloads/notes/"]
    answers = {path: admin_client.get(path) for path in paths}
    assert {path: answer.status_code for path, answer in answers.items() if answer.status_code != 200} == {}
    assert "SignatureDoesNotMatch" in answers["/tenants/ci:infra/"].content.decode()
    assert "has no worker" not in answers["/"].content.decode()


def test_the_engine_of_demo_data_refuses_everything_else():
    from pools.errors import EngineUnavailable

    engine = DemoEngine()
    with pytest.raises(EngineUnavailable, match="demo data"):
        engine.list({})
