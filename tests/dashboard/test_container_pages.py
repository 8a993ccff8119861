"""One container's page: its use beside its limits, over its own life, and whether shells are allowed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from pools.models import ContainerUsage
from tests.make import make_held, make_pool, make_workload
from tests.pages import text_of

pytestmark = pytest.mark.any_database


@pytest.fixture
def admin(client, db, data_dir, monkeypatch):
    monkeypatch.setattr("tenants.activity.logs", lambda *_arguments, **_options: b"")
    client.force_login(User.objects.create_superuser("ada"))
    return client


def held(minutes: float, **resources):
    pool = make_pool(workload=make_workload(resources=resources))
    container = make_held(pool).container
    container.created_at = timezone.now() - timedelta(minutes=minutes)
    container.save()
    for second in (30, 15, 0):
        at = timezone.now() - timedelta(seconds=second)
        use = {"cpu_ns": 10**9 * (60 - second), "memory_bytes": 471_000, "pids": 1}
        ContainerUsage.objects.create(container_id=container.pk, at=at, **use)
    return container


def test_use_is_shown_beside_its_limit_which_the_chart_draws(admin):
    """B8: "Memory 471.0 kB" said nothing."""
    container = held(5, cpus=2, memory_mb=512)
    page = text_of(admin.get(f"/containers/{container.pk}/"))
    assert "471.0 kB of 512 MB" in page
    assert "1.00 of 2 cores" in page
    assert "limit 512 MB" in page
    assert f"&quot;limit&quot;:{512 << 20}" in page


@pytest.mark.parametrize(
    ("minutes", "query", "span"), [(5, "", "all"), (90, "", "1h"), (5, "?range=6h", "6h"), (5, "?range=x", "all")]
)
def test_a_young_containers_charts_begin_with_it(admin, minutes, query, span):
    """B8: two minutes in a chart of an hour were a dot."""
    page = text_of(admin.get(f"/containers/{held(minutes).pk}/{query}"))
    assert f'aria-current="true"> {span} </a>' in page


@pytest.mark.parametrize("is_on", [True, False])
def test_it_says_whether_shells_are_allowed_and_who_may_change_that(admin, settings, is_on):
    """C23."""
    settings.BOILERHOUSE_TERMINAL = is_on
    path = f"/containers/{held(1).pk}/"
    page, terminal = text_of(admin.get(path)), text_of(admin.get(f"{path}terminal/"))
    assert ("Open shell" in page, "Shells are off" in page) == (is_on, not is_on)
    assert ("BOILERHOUSE_TERMINAL=true" in terminal) is not is_on
    if is_on:
        assert "What you change is lost on release" in terminal
