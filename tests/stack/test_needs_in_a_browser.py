"""A cause that appears on an open page, its cure by a click, and what the shell says of updates and times."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.stack.chromium import live, member, sign_in, watched
from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
STATE = "t/${tenantId}/"


def test_a_failed_save_is_shown_by_its_cause_and_cured_there(stack, pools, browser, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=1)
    held = stack.claim("cure-1", pool)["containerId"]
    stack.exec(held, "echo one > /state/one")
    member("nora", "operator")
    page = watched(browser, timezone_id="Asia/Tokyo")
    sign_in(stack, page, "nora")
    live(page, f"{stack.base}/pools/{pool}/")
    sink_server.stop()
    stack.problem("POST", "tenants/cure-1/release", {}, 502, "save_failed")

    need = page.locator(".need", has_text="cannot save").or_(page.locator(".need", has_text="is not saved"))
    expect(need).to_contain_text("1 tenant waits. Its state is safe on this node.", timeout=60_000)
    expect(need).to_have_count(1)
    expect(need).not_to_contain_text("{}")
    assert page.title().startswith("(1!)")
    sink_server.start()
    need.get_by_role("button", name="Retry save").click()
    expect(page.locator("#toasts")).to_contain_text(
        re.compile("Retrying 1 save|already being retried|Nothing was done")
    )
    eventually(lambda: not stack.status("cure-1")["assigned"], 60)
    expect(need).to_have_count(0, timeout=60_000)

    live(page, f"{stack.base}/sync/?range=1h")
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator("#conn")).to_have_text(re.compile("Paused"))
    page.get_by_role("button", name="Resume updates").click()
    expect(page.get_by_role("button", name="Pause updates")).to_be_visible()
    page.get_by_role("button", name="local", exact=True).click()
    expect(page.get_by_role("button", name="UTC", exact=True)).to_be_visible()
    table = page.locator("#chart-runs")
    table.get_by_text("Show as table").click()
    expect(table.locator("thead")).to_contain_text("local time")
    last = table.locator("tbody time").last
    utc_hour = int((last.get_attribute("datetime") or "")[11:13])
    assert (int(last.inner_text()[:2]) - utc_hour) % 24 == 9, "as on the axis"
    page.goto(f"{stack.base}/pools/new")
    expect(page.locator("#conn")).to_be_hidden()
    # Chromium says this when anything on the machine makes a network, and then asks again.
    assert [one for one in page.problems if "ERR_NETWORK_CHANGED" not in one] == []
    page.close()
