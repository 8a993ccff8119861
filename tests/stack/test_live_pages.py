"""Pages that stand open while things change: every button then does what it says, and nothing that is shown is false."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from boilerhouse.core.events import emit
from boilerhouse.core.ids import uuid7
from tests.stack.chromium import live, member, sign_in
from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
STATE = "t/${tenantId}/"


def test_buttons_that_appear_after_a_change_open_their_question(stack, pools, page, sink_server):
    """A1: their dialogs stood outside what a refresh replaces. A2: the texts were those of page load."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    stack.claim("change-1", pool)
    live(page, f"{stack.base}/tenants/change-1/")
    stack.release("change-1")
    page.get_by_role("button", name="Erase").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Erase the state of change-1?")
    expect(page.locator("#question-in")).to_be_focused()
    expect(dialog.get_by_role("button", name="Erase state")).to_be_disabled()
    page.keyboard.type("change-1")
    expect(dialog.get_by_role("button", name="Erase state")).to_be_enabled()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    stack.claim("change-1", pool)
    page.get_by_role("button", name="Release").click()
    expect(dialog).to_contain_text("Release change-1?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Release")).to_be_focused()

    idle = next(one["id"] for one in stack.containers(pool))
    live(page, f"{stack.base}/containers/{idle}/")
    expect(page.get_by_role("button", name="Remove")).to_be_visible()
    while stack.claim("change-2", pool)["containerId"] != idle:
        stack.release("change-2")
        idle = next(one["id"] for one in stack.containers(pool))
        live(page, f"{stack.base}/containers/{idle}/")
    page.get_by_role("button", name="Save and release").click()
    expect(dialog).to_contain_text("Release change-2?")
    expect(dialog).not_to_contain_text("No tenant is using it")
    dialog.get_by_role("button", name="Save and release").click()
    eventually(lambda: not stack.status("change-2")["assigned"], 60)


def test_forms_do_not_become_stale_and_pages_that_are_refreshed_do(stack, pools, page):
    """A7: the clock of the page goes on by 40 s, with and without answers."""
    pool = pools(warm=1)
    page.clock.install()
    for path in ("/pools/new", "/workloads/new", "/settings/keys/", "/sync/specs/new"):
        page.goto(stack.base + path)
        page.clock.run_for(40_000)
        assert page.locator(".card").count() > 0
        assert page.locator(".card.stale").count() == 0, path
    live(page, f"{stack.base}/pools/{pool}/")
    page.route("**/pools/**", lambda route: route.abort())
    page.clock.run_for(45_000)
    expect(page.locator(".card.stale").first).to_be_visible()
    page.unroute("**/pools/**")
    page.problems.clear()  # the aborted refreshes


def test_who_watches_a_container_when_it_goes_sees_how_it_ended(stack, pools, page):
    """A8: it was a sentence one or two letters wide, and the page was dead. Its log stays, also for whoever comes later."""
    pool = pools(warm=1)
    held = stack.claim("goes-1", pool)["containerId"]
    stack.exec(held, "echo said-before-it-went > /proc/1/fd/1")
    live(page, f"{stack.base}/containers/{held}/")
    expect(page.locator("#log")).to_contain_text("said-before-it-went")
    stack.release("goes-1")
    expect(page.locator("#ending")).to_contain_text("This container was removed", timeout=30_000)
    expect(page.locator("#ending")).to_contain_text("Released by key")
    expect(page.locator("#main form button").filter(visible=True)).to_have_count(0)
    expect(page.locator("#log")).to_contain_text("said-before-it-went")
    expect(page.locator("#log-state")).to_have_text("The container has been removed")
    page.reload()
    expect(page.locator("#log")).to_contain_text("said-before-it-went")


def test_eight_tabs_of_containers_are_live_and_others_open(stack, pools, browser):
    """A9: a browser opens six connections to a server, so the seventh tab hung until another was closed."""
    pool = pools(warm=2, maxSize=3)
    held = [stack.claim(f"eight-{number}", pool)["containerId"] for number in range(2)]
    member("tabs", "operator")
    context = browser.new_context()
    tabs = [context.new_page() for _ in range(8)]
    sign_in(stack, tabs[0], "tabs")
    for number, tab in enumerate(tabs):
        tab.goto(f"{stack.base}/containers/{held[number % 2]}/")
    for tab in tabs:
        expect(tab.locator("#log-state")).to_have_text("Following")
    for container in held:
        stack.exec(container, "echo said-to-all > /proc/1/fd/1")
    for tab in tabs:
        expect(tab.locator("#log")).to_contain_text("said-to-all")
    other = context.new_page()
    other.goto(f"{stack.base}/pools/{pool}/", timeout=10_000)
    expect(other.locator("#conn")).to_have_text("Live")
    context.close()


def test_a_tab_that_is_not_seen_follows_no_log(stack, pools, page):
    """No line is lost."""
    pool = pools(warm=1)
    held = stack.claim("tabs-1", pool)["containerId"]
    say = "echo said-{} > /proc/1/fd/1"
    stack.exec(held, say.format("first"))
    sent: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    live(page, f"{stack.base}/containers/{held}/")
    expect(page.locator("#log-state")).to_have_text("Following")

    def be_seen(is_seen: bool) -> None:
        hidden = "false" if is_seen else "true"
        page.evaluate(f"Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    be_seen(False)
    eventually(lambda: page.wait_for_timeout(100) or any("unfollow" in frame for frame in sent))
    stack.exec(held, say.format("meanwhile"))
    page.wait_for_timeout(500)
    expect(page.locator("#log")).not_to_contain_text("said-meanwhile")
    be_seen(True)
    expect(page.locator("#log")).to_contain_text("said-meanwhile")
    expect(page.locator("#log")).not_to_contain_text("Reconnected")


def test_an_event_fetches_the_pages_that_it_changes_and_a_hidden_tab_fetches_nothing(stack, pools, page):
    """C21: every event fetched every open page, all of it."""
    pool = pools(warm=1)
    stack.claim("weigh-1", pool)
    fetched: list[int] = []
    page.on("response", lambda one: fetched.append(one.status) if one.request.resource_type == "xhr" else None)

    def quiet_ms(ms: int = 1500) -> list[int]:
        fetched.clear()
        page.wait_for_timeout(ms)
        return list(fetched)

    # What all pages ask for every ten seconds is not the subject.
    page.add_init_script("const every = setInterval; window.setInterval = (f, ms) => ms === 1000 ? 0 : every(f, ms)")
    live(page, f"{stack.base}/tenants/weigh-1/")
    eventually(lambda: not quiet_ms())
    fetched.clear()
    emit("container.claimed", pool_id=pool, tenant_id="weigh-2", container_id=uuid7())
    assert quiet_ms() == []
    emit("pool.warning", pool_id=pool, tenant_id="weigh-1", detail="said-of-this-tenant")
    assert quiet_ms() == [200]
    read = page.locator("time[data-as-of]").first
    before = read.get_attribute("datetime")
    page.wait_for_timeout(1100)
    emit("sync.progress", pool_id=pool, tenant_id="weigh-1")
    assert quiet_ms(2500) == [304]
    assert read.get_attribute("datetime") > before, "what has not changed was read again"
    live(page, f"{stack.base}/workloads/")
    eventually(lambda: not quiet_ms())
    emit("sync.completed", pool_id=pool, tenant_id="weigh-1")
    assert quiet_ms(2500) == []
    emit("pool.scaled", pool_id=pool)
    assert quiet_ms() == [304]
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => true })")
    for _ in range(3):
        emit("pool.scaled", pool_id=pool)
    assert quiet_ms() == []
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => false })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert quiet_ms() == [304]


def test_back_shows_the_filters_that_are_on(stack, pools, page):
    """A12: the box said "user" over unfiltered rows."""
    pool = pools(warm=1)
    stack.claim("back-1", pool)
    live(page, f"{stack.base}/tenants/")
    page.locator("#f-pool").select_option(pool)
    expect(page).to_have_url(re.compile(f"pool={pool}"))
    page.locator("#f-q").fill("nobody")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("q=nobody"))
    page.go_back()
    expect(page).not_to_have_url(re.compile("q=nobody"))
    expect(page.locator("#f-q")).to_have_value("")
    expect(page.locator("#f-pool")).to_have_value(pool)
    page.go_back()
    expect(page.locator("#f-pool")).to_have_value("")
    page.go_forward()
    page.go_forward()
    expect(page.locator("#f-q")).to_have_value("nobody")
