"""Common complaints of operators about similar products, each tested on our pages; the numbers are the list's."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from boilerhouse.core.models import AuditEntry, Process
from tests.stack.chromium import live, member, sign_in, watched
from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]


@pytest.fixture(scope="module")
def crowd(stack) -> Any:
    """120 tenants that hold something, as rows only."""
    from tenants.models import Assignment, Tenant
    from tests.make import make_pool

    pool = make_pool("crowd", is_paused=True, max_size=1, min_size=0, min_idle=0)
    rows = []
    for number in range(120):
        tenant = Tenant.objects.create(id=f"crowd-{number:03}", generation=1)
        rows.append(
            Assignment(
                tenant=tenant,
                pool=pool,
                generation=1,
                state="release_failed",
                step="saving",
                deadline=timezone.now(),
                next_attempt_at=timezone.now() + timedelta(days=1),
            )
        )
    Assignment.objects.bulk_create(rows)
    yield pool
    Assignment.objects.filter(pool=pool).delete()
    Tenant.objects.filter(pk__startswith="crowd-").delete()
    pool.delete()


def test_01_02_06_07_filter_page_and_sort_stand_through_updates_focus_and_back(stack, pools, page, crowd):
    live(page, f"{stack.base}/tenants/?pool=crowd&sort=tenant&page=2")
    first = page.locator("#main tbody th a").first
    expect(first).to_have_text("crowd-050")
    pool = pools(warm=1)
    stack.claim("noise-1", pool)
    stack.release("noise-1")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(1500)
    expect(first).to_have_text("crowd-050")
    expect(page.locator(".filter")).to_contain_text("pool: crowd")
    page.get_by_role("link", name="Tenant", exact=True).click()
    expect(first).to_have_text("crowd-119")
    page.locator("#f-q").fill("crowd-11")
    page.keyboard.press("Enter")
    expect(page.locator("#main tbody tr")).to_have_count(10)
    page.get_by_role("link", name=re.compile("pool: crowd")).click()
    page.go_back()
    expect(page.locator(".filter")).to_have_count(2)
    page.go_back()
    expect(first).to_have_text("crowd-119")
    page.go_back()
    expect(first).to_have_text("crowd-050")


def test_08_an_action_does_not_jump_to_the_top(stack, pools, page):
    pool = pools(warm=2, maxSize=4)
    live(page, f"{stack.base}/pools/{pool}/")
    page.set_viewport_size({"width": 900, "height": 420})
    button = page.get_by_role("button", name=re.compile("^Scale"))
    button.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 0
    page.get_by_label("Target size").fill("3")
    expect(button).to_have_text("Scale to 3")
    button.click()
    expect(page.locator("#toasts")).to_contain_text("to 3.")
    eventually(lambda: abs(page.evaluate("scrollY") - before) < 120)
    page.set_viewport_size({"width": 1440, "height": 900})


def test_14_15_only_what_cannot_be_undone_wants_a_name_typed(stack, pools, page):
    pool = pools(warm=1)
    live(page, f"{stack.base}/pools/{pool}/?tab=configuration")
    page.get_by_role("button", name="Delete pool").click()
    expect(page.locator("dialog input[data-typed]")).to_have_count(1)
    page.goto(f"{stack.base}/pools/{pool}/")
    page.get_by_role("button", name="Pause refill").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Drain pool")).to_be_enabled()
    page.keyboard.press("Escape")


def test_18_an_error_stays_can_be_copied_and_names_its_request(stack, pools, page):
    pool = pools(warm=1)
    page.goto(f"{stack.base}/pools/{pool}/")
    page.evaluate(  # nothing is selected
        """() => {
            const form = document.querySelector('form[action$="/pause"]');
            form.action = "/containers/remove";
            form.requestSubmit();
        }"""
    )
    toast = page.locator(".toast")
    expect(toast).to_have_attribute("role", "alert")
    page.wait_for_timeout(5500)  # what went well leaves after five seconds
    expect(toast).to_contain_text("Request")
    expect(toast.get_by_role("button", name="Copy")).to_be_visible()
    toast.get_by_role("button", name="Close").click()
    expect(toast).to_have_count(0)


def test_19_a_connection_that_breaks_again_and_again_says_so_once(stack, browser):
    member("flaky", "viewer")
    page = watched(browser)
    broken = []
    page.route_web_socket("**/ws/events*", lambda socket: (broken.append(socket), socket.close()))
    page.clock.install()
    sign_in(stack, page, "flaky")
    for _ in range(60):
        page.clock.run_for(20_000)
        page.wait_for_timeout(20)
        if len(broken) >= 20:
            break
    assert len(broken) >= 20
    assert page.locator(".toast").count() == 0
    expect(page.locator("#conn")).to_have_count(1)
    page.close()


def test_20_what_is_not_fresh_says_so(stack, pools, browser):
    pools(warm=1)
    member("stale", "viewer")
    page = watched(browser)
    sign_in(stack, page, "stale")
    page.clock.install()
    live(page, f"{stack.base}/pools/")
    page.route("**/pools/", lambda route: route.abort())
    for _ in range(8):
        page.clock.run_for(5000)
    expect(page.locator(".card").first).to_have_class(re.compile("stale"))
    page.unroute("**/pools/")
    for _ in range(3):
        page.clock.run_for(11_000)
        page.wait_for_timeout(200)
    expect(page.locator(".card").first).not_to_have_class(re.compile("stale"))
    page.close()


def test_22_a_transfer_shows_its_bytes_files_and_time_or_that_it_still_lists(stack, pools, page, crowd):
    from syncing.models import SyncRun
    from tests.make import make_sync_spec

    spec = make_sync_spec(crowd, id="crowd-spec")
    alive = Process.objects.filter(kind="controller").latest("heartbeat_at").pk  # a dead owner's runs soon are failed
    about = {"spec": spec, "tenant_id": "crowd-001", "generation": 1, "direction": "upload", "trigger": "manual",
             "owner": alive, "created_at": timezone.now() - timedelta(seconds=3)}  # fmt: skip
    known = {"bytes": 1_200_000_000, "totalBytes": 62_500_000_000, "percent": 1.9, "files": 2, "totalFiles": 86,
             "bytesPerSecond": 464_000, "etaMs": 137_000_000}  # fmt: skip
    runs = [
        SyncRun.objects.create(**about, state="running", started_at=timezone.now(), progress=known),
        SyncRun.objects.create(**{**about, "tenant_id": "crowd-002"}, state="running", started_at=timezone.now()),
    ]
    try:
        live(page, f"{stack.base}/sync/")
        shown = page.locator(f"#xfer-{runs[0].pk}")
        for words in ("1.2 GB of 62.5 GB", "1.9 %", "464.0 kB/s", "1 d 14 h left", "2 of 86 files"):
            expect(shown).to_contain_text(words)
        expect(page.locator(f"#xfer-{runs[1].pk}")).to_contain_text("the total is not known yet")
    finally:
        SyncRun.objects.filter(spec=spec).delete()
        spec.delete()


def test_23_every_state_has_a_word_and_a_shape(stack, pools, page, crowd):
    pools(warm=1)
    count = 0
    for path in ("/", "/pools/", "/tenants/", "/sync/"):
        page.goto(stack.base + path)
        for chip in page.locator("#main .chip, #main .word").all():
            count += 1
            assert chip.inner_text().strip(), path
            assert chip.locator("svg use").count() == 1, path
    assert count, "some page shows a state"


def test_25_who_did_it_is_known_and_times_can_be_local(stack, pools, browser):
    pool = pools(warm=1)
    member("zoe", "operator")
    page = watched(browser, timezone_id="Asia/Tokyo")
    sign_in(stack, page, "zoe")
    page.goto(f"{stack.base}/pools/{pool}/")
    page.get_by_role("button", name="Pause refill").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    entry = AuditEntry.objects.filter(object_id=pool, action="pool.pause").get()
    assert entry.actor == "user zoe"
    page.goto(f"{stack.base}/activity/?poolId={pool}")
    shown = page.locator("#main .feed time").first
    utc = shown.inner_text()
    page.get_by_role("button", name="local").click()
    expect(page.get_by_role("button", name="UTC")).to_be_visible()
    expect(page.locator("#main .feed time").first).not_to_have_text(utc)
    local = page.locator("#main .feed time").first.inner_text()
    assert (int(local[:2]) - int(utc[:2])) % 24 == 9, (utc, local)
    page.close()


def test_keys_walk_rows_show_themselves_and_can_be_switched_off(stack, page, crowd):
    live(page, f"{stack.base}/tenants/?pool=crowd&sort=tenant")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="crowd-001")).to_be_focused()
    page.keyboard.press("k")
    expect(page.get_by_role("link", name="crowd-000")).to_be_focused()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("p")
    time.sleep(0.3)
    assert "/tenants/" in page.url
    page.evaluate("localStorage.removeItem('keys')")
    page.reload()
    page.keyboard.press("g")
    page.keyboard.press("p")
    expect(page.get_by_role("heading", level=1)).to_have_text("Pools")
