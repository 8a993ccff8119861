"""Tools on the pages: followed logs, a shell, dry runs, previews, backups, erasure; in a real Chromium."""

from __future__ import annotations

import asyncio
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import websockets
from playwright.sync_api import expect

from boilerhouse.core.models import AuditEntry
from pools import dry_runs, lifecycle
from pools.runtime import get_runtime
from tests.stack.chromium import FIVE_TIMES_PROMISED_MS, live, member, sign_in, watched, without_web
from tests.stack.conftest import eventually

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
STATE = "t/${tenantId}/"


# Logs -------------------------------------------------------------------------------------------------


def lines_of(page: Any) -> int:
    return int(page.evaluate("document.querySelectorAll('#log p[data-at]').length"))


def test_a_log_is_followed_stops_while_it_is_read_and_stays_small(stack, pools, page):
    """Complaints 9, 10 and 11: no frozen page, no forced scrolling to the end, no silent stall."""
    pool = pools(warm=1)
    held = stack.claim("logs-1", pool)["containerId"]
    stack.exec(held, "echo first-line > /proc/1/fd/1")
    live(page, f"{stack.base}/containers/{held}/")
    expect(page.locator("#log")).to_contain_text("first-line")
    expect(page.locator("#log-state")).to_have_text("Following", timeout=FIVE_TIMES_PROMISED_MS)
    stack.exec(held, "echo while-you-look > /proc/1/fd/1; echo '<b>markup</b> ERROR' > /proc/1/fd/1")
    expect(page.locator("#log")).to_contain_text("while-you-look", timeout=FIVE_TIMES_PROMISED_MS)
    expect(page.locator("#log p.t-error")).to_contain_text("<b>markup</b> ERROR")
    stack.exec(held, "seq 1 400 > /proc/1/fd/1")
    expect(page.locator("#log p[data-at]").last).to_contain_text("400", timeout=FIVE_TIMES_PROMISED_MS)
    page.evaluate("document.getElementById('log').scrollTop = 100")
    expect(page.locator("#log-state")).to_have_text("Paused while you read")
    stack.exec(held, "echo unread-1 > /proc/1/fd/1; echo unread-2 > /proc/1/fd/1")
    expect(page.locator("#log-newer")).to_contain_text("2 new lines", timeout=FIVE_TIMES_PROMISED_MS)
    assert page.evaluate("document.getElementById('log').scrollTop") == 100
    page.locator("#log-newer").click()
    expect(page.locator("#log-newer")).to_be_hidden()
    expect(page.locator("#log p[data-at]").last).to_be_in_viewport()
    with without_web(stack):
        expect(page.locator("#log-state")).to_have_text(re.compile("checking again|reconnecting"))
        name = lifecycle.runtime_name(uuid.UUID(held))
        get_runtime().exec(name, ("sh", "-c", "echo said-while-cut-off > /proc/1/fd/1"), 5000)
    expect(page.locator("#log")).to_contain_text("said-while-cut-off", timeout=40_000)
    expect(page.locator("#log-state")).to_have_text("Following")
    expect(page.locator("#log .gap")).to_contain_text("Reconnected")
    assert page.locator("#log").inner_text().count("unread-1") == 1, "a line came twice"
    stack.exec(held, "seq 1 100000 > /proc/1/fd/1")
    expect(page.locator("#log p[data-at]").last).to_contain_text("100000", timeout=60_000)
    assert lines_of(page) <= 500
    page.problems = []  # being cut off is an error of the console


def test_a_line_has_an_address_and_lines_are_searched_by_word_and_level(stack, pools, page):
    pool = pools(warm=1)
    held = stack.claim("logs-2", pool)["containerId"]
    stack.exec(held, "seq 1 120 > /proc/1/fd/1; echo 'WARNING: careful' > /proc/1/fd/1; seq 200 300 > /proc/1/fd/1")
    page.goto(f"{stack.base}/containers/{held}/")
    line = page.locator("#log p", has_text="careful")
    address = line.locator("a").get_attribute("href")
    page.goto(f"{stack.base}/containers/{held}/{address}")
    expect(page.locator("#log p.picked")).to_contain_text("careful")
    expect(page.locator("#log p.picked")).to_be_in_viewport()
    page.goto(f"{stack.base}/containers/{held}/?level=warn")
    assert lines_of(page) == 1
    page.goto(f"{stack.base}/containers/{held}/?q=no-such-word")
    expect(page.get_by_text("No lines match")).to_be_visible()
    page.goto(f"{stack.base}/containers/{held}/")
    page.locator("#f-q").fill("car")
    expect(page.locator("#log mark")).to_have_text("car")
    stack.exec(held, "echo 'another car' > /proc/1/fd/1; echo 'no match' > /proc/1/fd/1")
    expect(page.locator("#log p[data-at]")).to_have_count(2)  # a log that is searched is followed
    page.locator("#f-without").fill("^another")
    page.get_by_label("Regular expression").check()
    expect(page.locator("#log p[data-at]")).to_have_count(1)
    page.locator("#f-q").fill("(")
    expect(page.locator("#log-wrong")).not_to_be_empty()
    stack.exec(held, """echo '{"level":"error","msg":"structured","code":7}' > /proc/1/fd/1""")
    page.goto(f"{stack.base}/containers/{held}/?q=structured")
    line = page.locator("#log p.t-error.doc")
    expect(line).to_contain_text("structured")
    line.get_by_role("button").click()
    expect(line.locator(".rest")).to_contain_text('"code": 7')
    page.get_by_role("button", name="Full screen").click()
    expect(page.locator("#logs")).to_have_css("position", "fixed")
    page.keyboard.press("Escape")
    expect(page.locator("#logs")).not_to_have_css("position", "fixed")
    page.goto(f"{stack.base}/containers/{held}/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    text = download.value.path().read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT[\d:.]+Z WARNING: careful$", text, re.M)


def test_viewers_read_no_log_and_open_no_shell(stack, pools, browser):
    pool = pools(warm=1)
    held = stack.claim("logs-3", pool)["containerId"]
    stack.exec(held, "echo not-for-viewers > /proc/1/fd/1")
    member("looker", "viewer")
    page = watched(browser)
    sign_in(stack, page, "looker")
    page.goto(f"{stack.base}/containers/{held}/")
    expect(page.get_by_text("Only operators can read logs")).to_be_visible()
    assert "not-for-viewers" not in page.content()
    for path in ("logs", "terminal/"):
        assert page.request.get(f"{stack.base}/containers/{held}/{path}").status == 403, path
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    assert _knock(stack, held, cookies, stack.base) == 4403
    page.close()


# Shell ------------------------------------------------------------------------------------------------


def _knock(stack: Any, container_id: str, cookies: str, origin: str) -> int | str:
    """Ask for a shell as a program would; the code of the close, or why it was not even opened."""

    async def knock() -> int | str:
        headers = {"Cookie": cookies} if cookies else {}
        address = f"{stack.base.replace('http', 'ws')}/ws/terminal/{container_id}"
        try:
            async with websockets.connect(address, additional_headers=headers, origin=origin) as socket:  # type: ignore[arg-type]
                try:
                    await socket.send('{"reason": "a stranger at the door"}')  # it may be closed already
                    while True:
                        await asyncio.wait_for(socket.recv(), 10)
                except websockets.ConnectionClosed as closed:
                    return closed.rcvd.code if closed.rcvd else 0
        except websockets.InvalidStatus as refused:
            return f"HTTP {refused.response.status_code}"

    with ThreadPoolExecutor(1) as apart:  # Playwright has a loop of its own in this thread
        return apart.submit(lambda: asyncio.run(knock())).result()


def test_a_shell_is_opened_with_a_reason_and_ends_with_the_claim(stack, pools, page):
    """Complaints 12 and 13: the output stays on the page, and the end of the session is shown."""
    pool = pools(warm=1, maxSize=2)
    held = stack.claim("shell-1", pool)["containerId"]
    live_page = f"{stack.base}/containers/{held}/"
    page.goto(live_page)
    page.get_by_role("link", name="Open shell").click()
    expect(page.get_by_text("A shell runs in the container of shell-1")).to_be_visible()
    page.get_by_label("Reason").fill("looking at a test")
    page.get_by_role("button", name="Open shell").click()
    expect(page.locator("#term-state")).to_have_text("Open")
    page.keyboard.type("echo sum-$((40+2)); sleep 4242 &\n")
    text = "window.terminalText()"
    eventually(lambda: "sum-42" in page.evaluate(text))
    eventually(lambda: "sleep 4242" in stack.exec(held, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
    page.keyboard.type("stty size\n")
    eventually(lambda: re.search(r"^\d\d? \d\d\d?$", page.evaluate(text), re.M))
    entry = AuditEntry.objects.filter(action="container.terminal", object_id=held).get()
    assert entry.actor == "user tester"
    assert entry.after["reason"] == "looking at a test"
    stack.release("shell-1")
    expect(page.locator("#term-state")).to_contain_text("Ended", timeout=30_000)
    assert "sum-42" in page.evaluate(text)
    assert "Press Enter to open a new shell" in page.evaluate(text)
    page.locator(".xterm-helper-textarea").focus()
    page.keyboard.press("Enter")
    eventually(lambda: page.evaluate(text).count("Press Enter to open a new shell") == 2)
    assert AuditEntry.objects.filter(action="container.terminal_end", object_id=held).exists()
    page.goto(f"{stack.base}/settings/changes/?objectId={held}")
    expect(page.locator("#main")).to_contain_text("container.terminal")


def test_a_shell_leaves_nothing_behind_when_its_page_is_closed(stack, pools, browser):
    pool = pools(warm=1)
    held = stack.claim("shell-2", pool)["containerId"]
    member("olga", "operator")
    page = watched(browser)
    sign_in(stack, page, "olga")
    page.goto(f"{stack.base}/containers/{held}/terminal/")
    page.get_by_label("Reason").fill("closing it at once")
    page.get_by_role("button", name="Open shell").click()
    expect(page.locator("#term-state")).to_have_text("Open")
    page.keyboard.type("sleep 5353\n")
    eventually(lambda: "sleep 5353" in stack.exec(held, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    assert _knock(stack, held, cookies, "https://evil.example") == "HTTP 403"
    assert _knock(stack, held, "", stack.base) == 4403
    assert _knock(stack, "00000000-0000-7000-8000-000000000000", cookies, stack.base) == 4409
    page.close()
    eventually(lambda: "sleep 5353" not in stack.exec(held, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))


@pytest.mark.long  # waits longer than others' consoles last
def test_a_shell_survives_idleness(stack, pools, page):
    pool = pools(warm=1)
    held = stack.claim("shell-3", pool)["containerId"]
    page.goto(f"{stack.base}/containers/{held}/terminal/")
    page.get_by_label("Reason").fill("doing nothing for a while")
    page.get_by_role("button", name="Open shell").click()
    expect(page.locator("#term-state")).to_have_text("Open")
    page.keyboard.type("echo before\n")
    eventually(lambda: "before" in page.evaluate("window.terminalText()"))
    page.wait_for_timeout(130_000)
    page.keyboard.type("echo after-$((1+1))\n")
    eventually(lambda: "after-2" in page.evaluate("window.terminalText()"))
    assert "before" in page.evaluate("window.terminalText()")


# Files ------------------------------------------------------------------------------------------------


DROP = """names => {
  const carried = new DataTransfer();
  for (const name of names) carried.items.add(new File([`content of ${name}\\n`], name));
  for (const type of ["dragenter", "dragover", "drop"])
    document.getElementById("upload").dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: carried}));
}"""
"""Drops files onto the page, as the browser does when a person does."""


def test_files_are_dropped_and_edited_and_a_program_that_writes_too_loses_nothing(stack, pools, page):
    """What is dropped is there when the list shows it; a file that changed meanwhile is kept, and so is the draft."""
    pool = pools(warm=1)
    held = stack.claim("files-1", pool)["containerId"]
    stack.exec(held, "echo old > /state/old.txt")
    page.goto(f"{stack.base}/tenants/files-1/")
    page.get_by_role("link", name="Files", exact=True).click()
    files = page.get_by_role("region", name="Files")
    expect(files.get_by_role("link", name="old.txt")).to_be_visible()
    page.evaluate(DROP, ["<b>new.txt", "a/b", "old.txt"])
    uploads = page.get_by_role("list", name="Uploads").get_by_role("listitem")
    refused = uploads.filter(has_text="old.txt")
    expect(refused).to_contain_text("There is a file of this name already.")
    assert stack.exec(held, "cat /state/old.txt") == "old\n"
    page.problems = []  # the refused upload is an error of the console
    refused.get_by_role("button", name="Replace").click()
    expect(refused).to_contain_text("Uploaded")
    # The page is not loaded again, which would hide this.
    expect(uploads.filter(has_text="Not uploaded")).to_be_visible()
    page.reload()
    files.get_by_role("link", name="<b>new.txt").click()
    expect(page.get_by_label("Content of the file")).to_have_text("content of <b>new.txt\n")
    assert stack.exec(held, "cat /state/old.txt") == "content of old.txt\n"

    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Text of the file").fill("by hand\n")
    page.get_by_role("button", name="Show what changes").click()
    expect(page.locator(".diff .add")).to_have_text("+ by hand\n")
    stack.exec(held, "echo by a program > '/state/<b>new.txt'")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("the file has changed since you opened it")
    page.problems = []  # a conflict is an error of the console
    expect(page.locator(".diff .del")).to_have_text("- by a program\n")
    expect(page.get_by_label("Text of the file")).to_have_value("by hand\n")
    assert stack.exec(held, "cat /state/*new*") == "by a program\n"
    page.get_by_role("button", name="Show what changes").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Content of the file")).to_have_text("by hand\n")
    assert stack.exec(held, "cat /state/*new*") == "by hand\n"
    paths = [one.after["path"] for one in AuditEntry.objects.filter(action="container.file_write") if one.after]
    assert paths.count("/state/<b>new.txt") >= 2, "the upload, and the edit"


# Trials and previews ----------------------------------------------------------------------------------


def test_a_health_check_is_tried_once_in_a_scratch_container(stack, pools, page):
    pool = pools(warm=1)
    page.goto(f"{stack.base}/workloads/{pool}/edit")
    page.get_by_role("button", name="Run health check once").click()
    expect(page.get_by_text("Healthy at the first try")).to_be_visible(timeout=40_000)
    command = page.locator("[name='/healthCheck/command']")
    command.fill("sh -c 'echo the reason; exit 3'")
    page.locator("[name='/healthCheck/startPeriodMs']").fill("0")
    page.locator("[name='/healthCheck/timeoutMs']").fill("0.5")
    page.get_by_role("button", name="Run health check once").click()
    expect(page.get_by_text("Exit code 3 in")).to_be_visible(timeout=40_000)
    expect(page.get_by_label("Output of the health check")).to_contain_text("the reason")
    assert command.input_value() == "sh -c 'echo the reason; exit 3'"
    page.locator("[name='/image']").fill("no.such/image:1")
    page.get_by_role("button", name="Run health check once").click()
    expect(page.get_by_text("is not on this node")).to_be_visible(timeout=40_000)
    assert get_runtime().list({dry_runs.TRIAL_LABEL: _deployment()}) == []
    assert stack.ok("GET", f"workloads/{pool}")["version"] == 1


def _deployment() -> str:
    from boilerhouse.core.deployment import deployment_id

    return deployment_id()


def test_a_form_opens_at_what_is_wrong_and_at_results_and_asks_before_it_is_left(stack, pools, page):
    """C18: results were below the fold, and leaving lost what was typed."""
    address = f"{stack.base}/workloads/{pools(warm=1)}/edit"
    page.goto(address)
    page.locator("#s-environment > summary").click()
    variables = page.locator("[name='/environment']")
    variables.fill("no equals sign")
    page.get_by_role("button", name="Save workload").last.click()
    expect(variables).to_be_focused()
    expect(variables).to_be_in_viewport()
    expect(variables).to_have_value("no equals sign")
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.get_by_role("link", name="Cancel").click()
    eventually(lambda: asked == ["beforeunload"])
    assert page.url == address
    variables.fill("")
    page.get_by_role("button", name="Check config").click()
    result = page.locator("[data-result]")
    expect(result).to_be_focused()
    expect(result).to_be_in_viewport()
    expect(page.locator("#s-environment")).to_have_attribute("open", "")
    page.problems = []


def test_the_files_that_a_pattern_means_are_shown_before_it_is_saved(stack, pools, page, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=1)
    held = stack.claim("pattern-1", pool)["containerId"]
    stack.exec(
        held, "cd /state; mkdir deep; echo x > a.pt; echo y > deep/b.pt; echo z > note.txt; ln -s /etc/passwd link"
    )
    page.goto(f"{stack.base}/sync/specs/{pool}/edit")
    page.locator("[name='/mappings/0/pattern']").fill("*.pt")
    page.get_by_label("Container of tenant").select_option("pattern-1")
    page.get_by_role("button", name="Show files").click()
    shown = page.get_by_role("group", name="Files of mapping 1")
    expect(shown).to_contain_text("1 file match")
    expect(shown).to_contain_text("2 do not")
    page.locator("[name='/mappings/0/pattern']").fill("**/*.pt")
    page.get_by_role("button", name="Show files").click()
    expect(shown).to_contain_text("2 files match")
    expect(shown).to_contain_text("deep/b.pt")
    assert stack.ok("GET", f"sync-specs/{pool}")["mappings"][0].get("pattern") is None
    page.get_by_role("button", name="Probe this sink").click()
    expect(page.get_by_text("A test save and restore succeeded")).to_be_visible()
    page.locator("[name='/sink/bucket']").fill("no-such-bucket")
    page.locator("[name='/sink/secretAccessKey']").fill(sink_server.json(STATE)["secretAccessKey"])
    page.get_by_role("button", name="Probe this sink").click()
    expect(page.get_by_role("alert")).to_contain_text("bucket")
    assert stack.ok("GET", f"sync-specs/{pool}")["sink"]["bucket"] != "no-such-bucket"


def test_a_sync_says_what_it_would_do_and_a_backup_brings_a_file_back(stack, pools, page, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=2, maxSize=3)
    held = stack.claim("keeper-1", pool)["containerId"]
    stack.exec(held, "echo one > /state/one; echo two > /state/two")

    def counts(section: str) -> list[str]:
        page.goto(f"{stack.base}/tenants/keeper-1/sync")
        cells = page.get_by_role("region", name=section).locator("tbody tr").first.locator("td.num")
        return [cells.nth(number).inner_text() for number in range(4)]

    assert counts("Save to the sink") == ["2", "0", "0", "0"]
    page.get_by_role("button", name="Save now").click()
    expect(page.locator("#toasts")).to_contain_text("1 save of keeper-1 queued")
    expect(page.get_by_role("table", name="Sync runs")).to_contain_text("Done")
    assert counts("Save to the sink") == ["0", "0", "2", "0"]
    stack.exec(held, "rm /state/one; echo longer-than-before > /state/two; echo three > /state/three")
    assert counts("Save to the sink") == ["1", "1", "0", "1"]
    assert counts("Restore from the sink") == ["1", "1", "0", "0"]
    assert set(sink_server.keys("t/keeper-1/state")) == {"one", "two"}, "a preview touches nothing"
    stack.release("keeper-1")
    live(page, f"{stack.base}/tenants/keeper-1/")
    backups = page.get_by_role("region", name="Backups")
    expect(backups).to_contain_text("/state")
    backups.get_by_role("button", name="Restore").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Restore backup").click()
    expect(page.locator("#toasts")).to_contain_text("Restoring the backup")
    eventually(lambda: "one" in sink_server.keys("t/keeper-1/state"), 30)
    page.get_by_role("link", name="Backup restore").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Backup restore of keeper-1")
    expect(page.locator("#main")).to_contain_text("Done")
    page.goto(f"{stack.base}/tenants/keeper-1/")
    page.get_by_role("button", name="Erase").first.click()
    page.locator("#question-in").fill("keeper-1")
    page.get_by_role("dialog").get_by_role("button", name="Erase state").click()
    expect(page.locator("#toasts")).to_contain_text("Erasing the saved state")
    eventually(lambda: not sink_server.keys("t/keeper-1/state"), 30)


def test_a_run_that_fails_says_why_on_its_page(stack, pools, page, sink_server):
    pool = pools(sink=sink_server.json(STATE), warm=1)
    held = stack.claim("fail-1", pool)["containerId"]
    stack.exec(held, "echo one > /state/one")
    sink_server.stop()
    stack.ok("POST", "tenants/fail-1/sync", {"direction": "outward"}, 202)
    live(page, f"{stack.base}/tenants/fail-1/")
    expect(page.get_by_role("table", name="Sync runs")).to_contain_text("Failed", timeout=60_000)
    page.get_by_role("table", name="Sync runs").get_by_role("link", name="Save").first.click()
    expect(page.get_by_role("heading", name="Error", exact=True)).to_be_visible()
    expect(page.get_by_label("Error message")).to_contain_text("unreachable")
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()
    sink_server.start()
    page.problems = []


@pytest.mark.long  # waits for samples
def test_charts_have_a_cursor_and_do_not_pile_up(stack, pools, page):
    pool = pools(warm=2, maxSize=4)
    live(page, f"{stack.base}/pools/{pool}/?tab=usage")
    eventually(lambda: (page.reload(), page.locator(".plot[data-chart]").count())[1] == 4, 60, 2)
    page.locator(".plot[data-chart]").first.hover()
    expect(page.locator(".uplot canvas")).to_have_count(4)
    for number in range(3):
        stack.claim(f"chart-{number}", pool)
        page.wait_for_timeout(600)
    assert page.evaluate("charts.count()") == 4
    assert page.locator(".uplot canvas").count() == 4
    expect(page.get_by_text("Show as table").first).to_be_visible()


def test_json_is_edited_with_its_problems_at_their_places(stack, pools, page):
    pool = pools(warm=1)
    page.goto(f"{stack.base}/workloads/{pool}/edit?tab=json")
    editor = page.get_by_role("textbox", name="Workload as JSON")
    expect(editor).to_contain_text('"image"')
    expect(page.locator("#json")).to_be_hidden()
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text('{\n  "name": "x",\n  "image": "i",\n  "resources": {\n    "memoryMb": 1\n  }\n}')
    page.get_by_role("button", name="Save workload").last.click()
    expect(page.get_by_role("alert")).to_contain_text("/resources/memoryMb")
    marked = page.locator(".cm-lintRange-error")
    expect(marked).to_have_text("1")
    editor.click()
    page.keyboard.press("Control+End")
    page.keyboard.type("x")
    expect(page.locator(".cm-lint-marker-error").first).to_be_visible(timeout=10_000)
    page.get_by_role("button", name="Form", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Invalid JSON")
    page.problems = [one for one in page.problems if "422" not in one]  # the console notes what was refused
    assert stack.ok("GET", f"workloads/{pool}")["version"] == 1


def test_without_a_script_forms_and_lists_work_all_the_same(stack, pools, browser):
    pool = pools(warm=1, maxSize=3)
    member("plain", "operator")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(stack, page, "plain")
    page.goto(f"{stack.base}/workloads/{pool}/edit")
    page.get_by_role("button", name="Add port").click()
    expect(page.locator("[name='/ports/1/containerPort']")).to_be_visible()
    page.locator("[name='/ports/1/name']").fill("metrics")
    page.locator("[name='/ports/1/containerPort']").fill("9100")
    page.get_by_role("button", name="Save workload").last.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(pool)
    assert [port["name"] for port in stack.ok("GET", f"workloads/{pool}")["ports"]] == ["http", "metrics"]
    page.goto(f"{stack.base}/pools/{pool}/?state=idle&sort=-age")
    expect(page.locator(".filter")).to_contain_text("state: Idle")
    page.get_by_label("Target size").fill("2")
    page.get_by_role("button", name="Scale", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("to 2.")
    context.close()
