"""The pages in a real Chromium on the real stack: live updates, keyboard use, narrow and dark layouts, lost
connections."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from boilerhouse.core.models import Session
from tests.stack.chromium import FIVE_TIMES_PROMISED_MS, live, member, sign_in, watched, without_web
from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
STATE = "t/${tenantId}/"


def test_a_claim_made_elsewhere_shows_within_a_second(stack, pools, page):
    pool = pools(warm=2, maxSize=4)
    live(page, f"{stack.base}/")
    row = page.locator(f"#pool-{pool}")
    expect(row.get_by_text("2 idle")).to_be_visible()
    stack.claim("live-1", pool)
    started = time.monotonic()
    expect(row.get_by_text("1 claimed")).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)
    print(f"row changed {(time.monotonic() - started) * 1000:.0f} ms after the claim's answer")
    expect(page.locator("#feed")).to_contain_text("live-1 claimed")
    stack.release("live-1")
    expect(row.get_by_text("0 claimed")).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)


def test_a_new_pool_appears_and_a_deleted_one_goes(stack, pools, page):
    live(page, f"{stack.base}/pools/")
    pool = pools(warm=1)
    expect(page.locator(f"#pool-{pool}")).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)
    stack.drop_pool(pool)
    expect(page.locator(f"#pool-{pool}")).to_have_count(0)


def test_a_tenant_is_followed_from_claim_to_release_by_keyboard(stack, pools, page, sink_server):
    """No mouse: from the overview to the pool, its container, its tenant, and the release with its confirmation."""
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    held = stack.claim("keys-1", pool, config={"model": "small"})
    stack.exec(held["containerId"], "echo hello > /state/one; echo said-by-the-container > /proc/1/fd/1")
    live(page, f"{stack.base}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Control+k")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type(pool)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(pool)
    page.get_by_role("link", name=f"c-{held['containerId'][-8:]}").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#log")).to_contain_text("said-by-the-container")
    expect(page.get_by_text("In use by keys-1")).to_be_visible()
    page.get_by_role("link", name="keys-1").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("In use:")).to_be_visible()
    expect(page.get_by_label("Config of keys-1")).to_contain_text('"model": "small"')
    page.get_by_role("link", name="Sync now").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Sync keys-1 now")
    page.get_by_role("button", name="Save now").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 save of keys-1 queued.")).to_be_visible()
    expect(page.get_by_role("table", name="Sync runs")).to_contain_text("Done")
    page.get_by_role("button", name="Release").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Release").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Save and release").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main .lede")).to_contain_text("Released", timeout=30_000)
    assert set(sink_server.keys("t/keys-1/state")) == {"one"}
    assert stack.status("keys-1")["assigned"] is False


def test_the_palette_opens_and_acts_by_keyboard_alone(stack, pools, page):
    """Results as they are typed, the newest first when nothing is typed; an action, its question, and an error."""
    pool = pools(warm=2, maxSize=3)
    stack.claim("palette-1", pool)
    live(page, f"{stack.base}/")
    scripts = "performance.getEntriesByType('resource').filter(one => one.name.includes('/palette.')).length"
    assert page.evaluate(scripts) == 0, "it is loaded with the focus"
    page.keyboard.press("Control+k")
    field, options = page.get_by_role("combobox", name="Search"), page.get_by_role("option")
    expect(field).to_be_focused()
    page.keyboard.type("palette")
    expect(options.first).to_contain_text("palette-1")
    expect(options.first).to_have_attribute("aria-selected", "true")
    assert field.get_attribute("aria-activedescendant") == options.first.get_attribute("id")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert [one["id"] for one in found.response["violations"]] == []
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("palette-1")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("group", name="Recent").get_by_role("option")).to_contain_text(["palette-1"])
    page.keyboard.type("release pal")
    page.keyboard.press("Enter")  # before the results are there
    expect(page.get_by_role("dialog")).to_contain_text("Release palette-1")
    page.keyboard.press("Escape")
    page.route("**/search?*", lambda route: route.abort())
    page.keyboard.press("Control+k")
    page.keyboard.type("anything")
    expect(page.locator("#palette-s")).to_contain_text("does not answer")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()
    page.unroute("**/search?*")
    page.problems = []  # the request that was aborted
    stack.release("palette-1")


def test_focus_typing_open_rows_selection_and_scroll_survive_updates(stack, pools, page):
    pool = pools(warm=4, maxSize=6)
    for number in range(2):
        stack.claim(f"stay-{number}", pool)
    live(page, f"{stack.base}/pools/{pool}/")
    page.locator("input[name=id]").first.check()
    expect(page.locator(".bulk")).to_contain_text("1 selected")
    page.locator("#f-q").fill("half a wor")
    stack.claim("stay-2", pool)
    expect(page.locator("#main")).to_contain_text("stay-2", timeout=FIVE_TIMES_PROMISED_MS)
    expect(page.locator("#f-q")).to_have_value("half a wor")
    expect(page.locator("#f-q")).to_be_focused()
    expect(page.locator("input[name=id]:checked")).to_have_count(1)
    expect(page.locator(".bulk")).to_contain_text("1 selected")

    live(page, f"{stack.base}/activity/?poolId={pool}")
    page.locator("#main summary").first.click()
    page.evaluate("scrollTo(0, 100)")
    read = page.evaluate_handle("document.querySelectorAll('.feed > li')[1]")
    before = read.evaluate("row => row.getBoundingClientRect().top")
    stack.claim("stay-3", pool)
    show = page.get_by_role("link", name="1 update, show")
    expect(show).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)
    expect(page.locator("#main details[open]")).to_have_count(1)
    assert read.evaluate("row => row.getBoundingClientRect().top") == before, "the row that is read has moved"
    expect(page.locator("#journal")).not_to_contain_text("stay-3")
    show.click()
    expect(page.locator("#journal")).to_contain_text("stay-3 claimed")

    live(page, f"{stack.base}/")
    page.locator("#feed .feed > li").nth(1).hover()
    stack.release("stay-3")
    show = page.get_by_role("button", name=re.compile("updates?, show"))
    expect(show).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)
    expect(page.locator("#feed")).not_to_contain_text("stay-3 was released")
    show.click()
    expect(page.locator("#feed")).to_contain_text("stay-3 was released")
    expect(show).to_be_hidden()
    page.mouse.move(1, 1)
    for number in range(3):
        stack.release(f"stay-{number}")


def test_several_are_released_at_once_and_the_effect_of_a_size_is_shown_before(stack, pools, page):
    pool = pools(warm=3, maxSize=5)
    for number in range(2):
        stack.claim(f"bulk-{number}", pool)
    live(page, f"{stack.base}/pools/{pool}/")
    page.get_by_label("Target size").fill("5")
    expect(page.locator("#effect")).to_contain_text("Keeps 2 claimed containers")
    page.get_by_label("Target size").fill("50")
    expect(page.locator("#effect")).to_contain_text("Enter 3 to 5.")
    page.goto(f"{stack.base}/pools/{pool}/?state=claimed")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Remove 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nothing is saved")
    page.locator("#question-in").fill("2")
    dialog.get_by_role("button", name="Remove 2 and lose state").click()
    expect(page.locator("#main")).to_contain_text("2 of 2 removed.")
    eventually(lambda: not stack.status("bulk-0")["assigned"] and not stack.status("bulk-1")["assigned"], 30)
    page.goto(f"{stack.base}/pools/{pool}/")
    page.get_by_role("button", name="Pause refill").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause refill")).to_be_visible()


def test_a_pool_is_deleted_only_after_its_id_is_typed(stack, pools, page):
    pool = pools(warm=1)
    live(page, f"{stack.base}/pools/{pool}/?tab=configuration")
    page.get_by_role("button", name="Delete pool").first.click()
    button = page.locator("#question button[type=submit]")
    expect(button).to_be_disabled()
    page.locator("#question-in").fill(pool)
    expect(button).to_be_enabled()
    button.click()
    expect(page.locator("#toasts")).to_contain_text("Deleting")
    expect(page.locator(f"#pool-{pool}")).to_have_count(0)


def test_a_restarted_server_is_said_and_what_was_missed_is_fetched(stack, pools, page):
    pool = pools(warm=2, maxSize=3)
    live(page, f"{stack.base}/tenants/")
    with without_web(stack):
        expect(page.locator("#conn")).not_to_have_text("Live")

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return stack.call("GET", "health").status_code == 200
        return False

    eventually(answers, 40)
    stack.claim("missed-1", pool)
    expect(page.locator("#main")).to_contain_text("missed-1", timeout=40_000)
    expect(page.locator("#conn")).to_have_text("Live", timeout=40_000)
    stack.release("missed-1")
    page.problems = []  # a connection that breaks is an error of the console


def test_without_web_sockets_the_page_polls(stack, pools, browser):
    pool = pools(warm=2, maxSize=3)
    member("poller", "viewer")
    page = watched(browser)
    page.route_web_socket("**/ws/events*", lambda socket: socket.close())
    sign_in(stack, page, "poller")
    expect(page.locator("#conn")).to_have_text("Live, polling", timeout=40_000)
    stack.claim("polled-1", pool)
    expect(page.locator("#feed")).to_contain_text("polled-1 claimed")
    stack.release("polled-1")
    page.close()


def test_a_session_that_ends_leads_to_the_login_and_back(stack, browser):
    user = member("leaver", "viewer")
    page = watched(browser)
    sign_in(stack, page, "leaver")
    live(page, f"{stack.base}/sync/")
    for session in Session.objects.all():
        if session.get_decoded().get("_auth_user_id") == str(user.pk):
            session.delete()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=30_000)
    assert "next=/sync/" in page.url
    sign_in(stack, page, "leaver", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("Wrong user name or password")
    page.close()


def test_a_page_of_what_is_gone_says_so(stack, pools, browser):
    pool = pools(warm=1)
    member("keeper", "viewer")
    page = watched(browser)
    sign_in(stack, page, "keeper")
    live(page, f"{stack.base}/pools/{pool}/")
    stack.drop_pool(pool)
    expect(page.get_by_role("alert")).to_contain_text("no longer exists", timeout=30_000)
    expect(page.locator("#conn")).to_have_text("Gone")
    assert page.goto(f"{stack.base}/pools/{pool}/").status == 404
    expect(page.get_by_text("Go to the overview")).to_be_visible()
    page.close()


def test_viewers_are_shown_no_action_and_refused_admin_pages(stack, pools, browser):
    pool = pools(warm=1)
    member("looker", "viewer")
    page = watched(browser)
    sign_in(stack, page, "looker")
    page.goto(f"{stack.base}/pools/{pool}/")
    expect(page.get_by_role("heading", level=1)).to_contain_text(pool)
    expect(page.get_by_role("button", name="Drain")).to_have_count(0)
    answer = page.goto(f"{stack.base}/settings/keys/")
    assert answer.status == 403
    expect(page.get_by_text("You need the admin role")).to_be_visible()
    page.close()


@pytest.fixture(scope="module")
def shown(stack) -> Iterator[dict[str, str]]:
    """A pool with a claim, a save and a sink: every page has something to show."""
    from tests.s3 import S3Server

    directory = Path(os.environ["BOILERHOUSE_DATA_DIR"]) / "pictures"
    directory.mkdir(exist_ok=True)
    server = S3Server(directory)
    server.start()
    with contextlib.ExitStack() as last:
        last.callback(server.stop)
        sink = server.json(STATE)
        pool = stack.make_pool(sink=sink, warm=3, maxSize=8)
        held = stack.claim("team-vision", pool, config={"model": "vit-base-16", "epochs": 40})
        stack.exec(
            held["containerId"], "echo state > /state/one; for i in 1 2 3 4; do echo step $i > /proc/1/fd/1; done"
        )
        stack.ok("POST", "tenants/team-vision/sync", {"direction": "outward"}, 202)
        eventually(lambda: set(server.keys("t/team-vision/state")) == {"one"}, 30)
        gone = stack.claim("team-gone", pool)["containerId"]
        stack.exec(gone, "echo the last words > /proc/1/fd/1")
        stack.release("team-gone")
        workload = stack.ok("GET", f"pools/{pool}")["workloadId"]
        run = stack.ok("GET", "tenants/team-vision/runs")["items"][0]["id"]
        access = {"id": "pictures", "name": "pictures", "accessKeyId": "AKIDPICTURES", "secretAccessKey": "x" * 20}
        stack.call("POST", "credentials", access)
        registry = {"id": "pictures", "registry": "registry.example.com", "username": "puller", "password": "x" * 20}
        stack.call("POST", "registry-credentials", registry)
        yield {
            "overview": "/", "pools": "/pools/", "pool": f"/pools/{pool}/", "pool-usage": f"/pools/{pool}/?tab=usage",
            "pool-configuration": f"/pools/{pool}/?tab=configuration", "pool-timeline": f"/pools/{pool}/?tab=timeline",
            "pool-new": "/pools/new", "container": f"/containers/{held['containerId']}/", "terminal": f"/containers/{held['containerId']}/terminal/",
            "containers": "/containers/", "container-gone": f"/containers/{gone}/",
            "tenants": "/tenants/",
            "tenant": "/tenants/team-vision/", "tenant-sync": "/tenants/team-vision/sync", "sync": "/sync/",
            "files": "/tenants/team-vision/files/", "file": "/tenants/team-vision/files/view?path=/state/one",
            "file-edit": "/tenants/team-vision/files/edit?path=/state/new",
            "sync-specs": "/sync/specs/", "sync-spec": f"/sync/specs/{pool}/", "run": f"/sync/runs/{run}/",
            "sync-spec-edit": f"/sync/specs/{pool}/edit", "sync-spec-json": f"/sync/specs/{pool}/edit?tab=json", "workloads": "/workloads/", "workload": f"/workloads/{workload}/",
            "workload-edit": f"/workloads/{workload}/edit", "workload-new": "/workloads/new", "activity": "/activity/", "search": "/search?q=e",
            "settings": "/settings/", "settings-keys": "/settings/keys/", "settings-credentials": "/settings/credentials/", "settings-credential": "/settings/credentials/pictures/",
            "settings-registries": "/settings/registries/", "settings-registry": "/settings/registries/pictures/",
            "settings-deployment": "/settings/deployment/", "settings-changes": "/settings/changes/", "password": "/password/",
        }  # fmt: skip
        stack.release("team-vision")
        stack.drop_pool(pool)
        stack.call("DELETE", "credentials/pictures")
        stack.call("DELETE", "registry-credentials/pictures")


AXE = Axe().axe_script
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RULES_OF_COLOUR = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
"""A theme changes colours only."""


def test_every_page_fits_is_named_and_has_no_violation_that_axe_knows(stack, page, shown):
    """In light and dark, wide and narrow."""
    page.emulate_media(reduced_motion="reduce")  # no colour is on its way to another while axe looks
    found = {}
    for name, path in shown.items():
        for width in (390, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(stack.base + path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if overflow > 0:
                found[f"{name} {width}"] = f"{overflow} px too wide"
        page.evaluate(AXE)
        for theme, rules in (("light", RULES), ("dark", RULES_OF_COLOUR)):
            page.emulate_media(color_scheme=theme)
            for one in page.evaluate("rules => axe.run({runOnly: rules}).then((all) => all.violations)", rules):
                found[f"{name} {theme} {one['id']}"] = [node["html"][:200] for node in one["nodes"]][:3]
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    assert found == {}
