"""The pages of pools: what rolls, what is paused or drained, sizes that are refused, and the table."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from boilerhouse.dashboard import rolls
from pools.models import Pool, WorkloadVersion
from tenants import claim_times, weeks
from tenants.models import Assignment, Tenant
from tests.make import make_container, make_pool, make_spec, make_workload
from tests.pages import plain, text_of


@pytest.fixture
def operator(client, db, data_dir):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


def rolling(name: str = "p", **more: Any) -> tuple[Pool, WorkloadVersion, WorkloadVersion]:
    """A pool of a workload with two versions; it serves the first."""
    workload = make_workload()
    old = workload.latest
    pool = make_pool(name, workload=workload, max_size=10, **more)
    spec = make_spec(stop_timeout_ms=2000).to_json()
    return pool, old, WorkloadVersion.objects.create(workload=workload, number=2, spec_json=spec)


def test_a_roll_says_how_far_it_is_and_what_it_waits_for(operator):
    """C12: the pool was healthy, and which version its containers had stood in every row alone."""
    pool, old, new = rolling()
    for state in ("claimed", "claimed", "idle"):
        make_container(pool, version=old, state=state)
    page = plain(operator.get("/pools/p/"))
    assert "Version 2 rolls out, 0 of 3" in page
    assert "One container of version 2 is tested first. Version 1 serves until it is healthy." in page
    Pool.objects.update(good_version=new)
    make_container(pool, version=new)
    page = plain(operator.get("/pools/p/"))
    assert "Version 2 rolls out, 1 of 4" in page
    assert "1 idle container of older versions is replaced one after another." in page
    assert "2 claimed containers keep version 1 until their tenants are released." in page
    for path in ("/", "/pools/"):
        assert "Version 2 rolls out, 1 of 4" in plain(operator.get(path)), path
    Pool.objects.update(is_paused=True)
    assert "Refill is paused, so 1 idle container of older versions stay" in plain(operator.get("/pools/p/"))
    pool.containers.filter(version=old).delete()
    assert "rolls out" not in plain(operator.get("/pools/p/"))


def test_a_failed_roll_says_why_and_can_be_tried_again(operator):
    pool, old, new = rolling(last_error="Health check failed: exit code 3.", trouble="roll_halted")
    make_container(pool, version=old)
    Pool.objects.update(halted_version=new)
    page = plain(operator.get("/pools/p/"))
    assert "Version 2 failed, version 1 serves" in page
    assert "Version 2 did not become healthy, so the roll stopped: Health check failed: exit code 3." in page
    assert "Try again" in page
    operator.post("/pools/p/resume")
    assert Pool.objects.get().halted_version is None


def test_a_roll_to_other_network_settings_is_seen_too(operator):
    """Only versions were counted, so a pool whose containers were replaced one after another said nothing."""
    pool = make_pool("p", max_size=10)
    version = pool.workload.latest
    Pool.objects.update(good_version=version, network={"dns": ["192.0.2.1"]})
    for state in ("claimed", "idle", "idle"):
        make_container(pool, version=version, state=state)
    page = plain(operator.get("/pools/p/"))
    assert "New network settings roll out, 0 of 3" in page
    assert "One container with new network settings is tested first. The old ones serve until it is healthy." in page
    Pool.objects.update(good_network={"dns": ["192.0.2.1"]})
    make_container(pool, version=version, network={"dns": ["192.0.2.1"]})
    page = plain(operator.get("/pools/p/"))
    assert "New network settings roll out, 1 of 4" in page
    assert "2 idle containers with the old settings are replaced one after another." in page
    assert "1 claimed container keeps the old network settings until its tenant is released." in page
    for path in ("/", "/pools/"):
        assert "New network settings roll out, 1 of 4" in plain(operator.get(path)), path
    Pool.objects.update(
        good_network=None, halted_version=version, halted_network={"dns": ["192.0.2.1"]}, trouble="roll_halted",
        last_error="No route.",
    )  # fmt: skip
    page = plain(operator.get("/pools/p/"))
    assert "New network settings failed, the old ones serve" in page
    assert "Containers with new network settings did not become healthy, so the roll stopped: No route." in page
    pool.containers.filter(network__isnull=True).delete()
    Pool.objects.update(good_network={"dns": ["192.0.2.1"]}, halted_version=None, halted_network=None, trouble="")
    assert "roll out" not in plain(operator.get("/pools/p/"))


def test_rolls_of_many_pools_take_as_many_queries_as_of_one(operator, django_assert_num_queries):
    pools = [rolling(f"p{number}")[0] for number in range(4)]
    for pool in pools:
        make_container(pool, version=pool.good_version)
    with django_assert_num_queries(2):
        assert set(rolls.of_pools(pools)) == {"p0", "p1", "p2", "p3"}


def test_a_paused_drained_or_empty_pool_says_so_first(operator):
    """C13: the lede did not change, and a drained pool drained for ever."""
    pool = make_pool("p", is_draining=True)
    page = plain(operator.get("/pools/p/"))
    assert "Drained. New claims are refused until you resume the pool." in page
    assert "Draining" not in page
    assert "Resume" in page
    assert "Containers appear here" not in page
    container = make_container(pool, state="claimed")
    assert "Draining. New claims are refused until you resume the pool." in plain(operator.get("/pools/p/"))
    container.delete()
    Pool.objects.update(is_draining=False, is_paused=True)
    assert "Refill is paused. No container is started; idle ones can still be claimed." in plain(
        operator.get("/pools/p/")
    )
    Pool.objects.update(is_paused=False)
    assert "Scaled to 0. A claim starts a container and waits for it." in plain(operator.get("/pools/p/"))


@pytest.mark.parametrize(
    ("typed", "words"),
    [("99", "Enter 2 to 6."), ("many", "Enter a whole number, 2 to 6."), ("1", "Enter 2 to 6. 2 containers are claimed."),
     ("", "Enter a whole number, 2 to 6.")],
)  # fmt: skip
def test_a_size_that_is_not_allowed_stays_in_its_field_with_what_is(operator, typed, words):
    """C29: the field was reset, and the answer stood far away."""
    pool = make_pool("p", min_size=1, max_size=6)
    for _ in range(2):
        make_container(pool, state="claimed")
    answer = operator.post("/pools/p/scale", {"targetSize": typed, "tab": "usage"}, follow=True)
    assert answer.redirect_chain[0][0].startswith("/pools/p/?tab=usage&target=")
    assert words in plain(answer)
    field = re.search(r'<input [^>]*id="target"[^>]*>', text_of(answer))[0]  # type: ignore[index]
    assert f'value="{typed}"' in field
    assert 'aria-invalid="true"' in field
    assert "toast" not in text_of(answer).split('id="toasts"', 1)[1].split("<p", 1)[0]
    pool.refresh_from_db()
    assert pool.target_size == 0


def test_a_size_says_what_it_does_and_its_button_too(operator):
    pool = make_pool("p", max_size=6, target_size=3)
    for _ in range(3):
        make_container(pool)
    shown = {size: plain(operator.get("/pools/p/effect", {"targetSize": size})) for size in ("5", "1", "3")}
    assert "Starts 2 containers Scale to 5" in shown["5"]
    assert "Removes 2 idle containers Scale to 1" in shown["1"]
    assert "No container is started or removed Scale to 3" in shown["3"]
    assert "claimed" not in shown["5"]
    for page, then in (
        ("/pools/p/?sort=-age", "/pools/p/?sort=-age"),
        ("/pools/p/?target=99", "/pools/p/?tab=containers"),
    ):
        answer = operator.post("/pools/p/scale", {"targetSize": "5"}, headers={"Referer": f"http://testserver{page}"})
        assert answer["Location"] == then
    pool.refresh_from_db()
    assert pool.target_size == 5


def claimed(pool: Pool, tenant: str, latency_ms: int, source: str = "warm") -> None:
    now = timezone.now()
    Assignment.objects.create(
        tenant=Tenant.objects.create(id=tenant), pool=pool, generation=1, state="ended", deadline=now, ended_at=now,
        assigned_at=now - timedelta(minutes=1), latency_ms=latency_ms, source=source, was_assigned=True,
    )  # fmt: skip


def test_the_table_of_pools_has_claim_times_and_is_sorted_by_any_column(operator):
    """C14: without times, order or actions."""
    quick, slow, unused = make_pool("a-quick"), make_pool("b-slow"), make_pool("c-unused")
    for number in range(20):
        claimed(quick, f"q{number}", number + 1)
    claimed(slow, "s1", 4000, "cold")
    claimed(slow, "s2", 5)
    assert claim_times.by_pool() == {
        "a-quick": claim_times.PoolClaims(20, 0, 19), "b-slow": claim_times.PoolClaims(2, 1, 4000),
    }  # fmt: skip
    for pool_id, claims in claim_times.by_pool().items():
        assert weeks.compare(pool_id).this.p95_ms == claims.p95_ms, "one rule for the hour and the week"
    make_container(unused, state="claimed")

    def order(query: str) -> list[str]:
        return re.findall(r'<tr id="pool-([a-z-]+)"', text_of(operator.get(f"/pools/{query}")))

    assert order("?sort=p95") == ["a-quick", "b-slow", "c-unused"]
    assert order("?sort=-p95") == ["b-slow", "a-quick", "c-unused"], "pools without a claim come last"
    assert order("?sort=-cold")[0] == "b-slow"
    assert order("?sort=-size")[0] == "c-unused"
    assert order("?sort=-pool&q=b-") == ["b-slow"]
    assert order("?sort=evil") == order("")
    page = plain(operator.get("/pools/"))
    assert "4.0 s 50 %" in page
    raw = operator.get("/pools/?sort=p95").content.decode()
    assert 'aria-sort="ascending"' in raw
    assert 'popovertarget="m-b-slow"' in raw
    assert "/pools/b-slow/pause" in raw


def test_the_table_of_pools_does_not_cost_a_query_per_row(operator, django_assert_max_num_queries):
    for number in range(12):
        pool, old, _ = rolling(f"p{number}")
        make_container(pool, version=old)
        claimed(pool, f"t{number}", 5)
    with django_assert_max_num_queries(25):
        operator.get("/pools/")
