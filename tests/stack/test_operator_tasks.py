"""What a new operator does first, in a real Chromium on a deployment of its own: how many clicks each task takes.

The limits are what the same task took when a reviewer first tried the pages. Typing is not counted; each button, link and
menu is one click. The table is printed (``pytest -s``).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from boilerhouse.operations.supervisor import free_port
from tests.stack.chromium import watched
from tests.stack.conftest import ROOT, eventually, is_ready

pytestmark = [pytest.mark.stack, pytest.mark.any_database, pytest.mark.long]
IMAGE = "boilerhouse/example-workload:1"


@dataclass
class Hand:
    """An operator at a browser, whose clicks are counted."""

    base: str
    page: Page
    key: str = ""
    clicks: int = 0
    rows: list[tuple[str, int | None, int, str]] = field(default_factory=list)
    """Task, the reviewer's clicks, clicks now, what the page said."""

    def click(self, name: str, *, role: Any = "button", within: Locator | None = None) -> None:
        place = within or self.page
        place.get_by_role(role, name=name, exact=isinstance(name, str)).first.click()
        self.clicks += 1

    def follow(self, name: str, within: Locator | None = None) -> None:
        self.click(name, role="link", within=within)

    @contextlib.contextmanager
    def task(self, name: str, limit: int | None, found: str, start: str = "/") -> Iterator[Page]:
        """The task begins at this page."""
        self.page.goto(self.base + start)
        self.clicks = 0
        yield self.page
        self.rows.append((name, limit, self.clicks, found))

    def call(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """A program's call of the API, with the key that the operator made."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.request(method, f"{self.base}/api/v1/{path}", json=body, headers=headers, timeout=120)
        assert status is None or answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@dataclass
class Deployment:
    base: str
    environment: dict[str, str]
    up: subprocess.Popen[bytes]

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180, check=True
        )
        return done.stdout.strip()

    def s3(self) -> int:
        """The pid of its embedded S3."""
        root = f"{self.environment['BOILERHOUSE_DATA_DIR']}/s3"
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "serve" in words and "s3" in words and any(root in word for word in words):
                    return int(directory.name)
        raise AssertionError("no embedded S3 runs")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """As somebody finds it who has just started it: nothing in it, an S3 beside it."""
    from pools import images

    images.ensure_example()
    data = tmp_path_factory.mktemp("tasks")
    port = free_port()
    environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(data), "BOILERHOUSE_TERMINAL": "true"}
    environment.pop("DATABASE_URL", None)
    with (data / "up.log").open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--s3", "--port", str(port)],
            cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    made = Deployment(f"http://127.0.0.1:{port}", environment, up)
    try:
        eventually(lambda: is_ready(made.base), 90, 0.3)
        yield made
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(timeout=30)
        finally:
            made.manage("purge", "--yes")


@pytest.fixture(scope="module")
def hand(deployment: Deployment, browser: Browser) -> Iterator[Hand]:
    page = watched(browser)
    context = page.context
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=deployment.base)
    page.goto(deployment.manage("login_link", "--create", "--user", "admin"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    working = Hand(deployment.base, page)
    working.rows.append(("log in", 0, 0, "the printed link has a host and can be clicked; once"))
    yield working
    page.close()
    print("\n| task | reviewer's clicks | now | what is seen |\n| --- | --- | --- | --- |")
    for name, limit, clicks, found in working.rows:
        print(f"| {name} | {'not possible' if limit is None else limit} | {clicks} | {found} |")


def test_1_from_nothing_to_a_saved_claim(hand):
    page = hand.page
    with hand.task("workload from nothing", 5, "only name and image are required; the health check is tried once"):
        hand.follow("New workload")
        page.locator("[name='/name']").fill("Notes")
        page.locator("[name='/image']").fill(IMAGE)
        hand.click("Run health check once")
        expect(page.get_by_text("Healthy at the first try")).to_be_visible(timeout=60_000)
        hand.click("Save workload")
        expect(page.get_by_role("heading", level=1)).to_have_text("notes")
    with hand.task("pool", 3, "says at the top that state is lost without a sync spec, with the link that adds one"):
        hand.follow("New pool")
        page.get_by_label("Name", exact=True).fill("Notes")
        hand.click("Create pool")
        expect(page.locator("#unsaved")).to_contain_text("What tenants write is lost on release.")
        expect(page.locator("#unsaved").get_by_role("link", name="Add a sync spec")).to_be_visible()
        expect(page.locator("#main .lede")).to_contain_text("2 ready", timeout=60_000)
    with hand.task("sync spec with embedded S3", 5, "one button; endpoint, keys and region are known to it"):
        hand.click("Use the built-in S3")
        expect(page.locator("#toasts")).to_contain_text("saves the state of notes")
    with hand.task("API key", 3, "the example request is a claim of this pool"):
        hand.follow("Create API key")
        page.get_by_label("Name", exact=True).fill("gateway")
        hand.click("Create key")
        hand.key = page.locator("#new-key").inner_text()
        expect(page.get_by_label("Example request")).to_contain_text("/claim")
        hand.click("Copy key")
        assert page.evaluate("navigator.clipboard.readText()") == hand.key
    with hand.task("claim seen live", 0, "on the overview, without a reload"):
        expect(page.locator("#conn")).to_have_text("Live")
        claim = {"poolId": "notes"}
        hand.call("POST", "tenants/acme-042/claim", claim, 201)
        expect(page.locator("#main")).to_contain_text("acme-042 claimed")


def test_2_look_at_a_tenant(hand):
    page = hand.page
    container = hand.call("GET", "tenants/acme-042/status", None, 200)["containerId"]
    say = {"command": ["sh", "-c", "echo said-by-the-program > /proc/1/fd/1; echo one > /state/one"]}
    hand.call("POST", f"containers/{container}/exec", say, 200)
    short = f"c-{container[-8:]}"
    with hand.task("follow logs", 3, "Following; the times are links to their lines"):
        hand.follow("notes", within=page.locator("#pool-list"))
        hand.follow(short, within=page.locator("#main table"))
        expect(page.locator("#log")).to_contain_text("said-by-the-program")
        expect(page.locator("#log-state")).to_have_text("Following")
    with hand.task("shell", 3, "asks for a reason; the sentence above is true once the shell is open"):
        hand.follow("notes", within=page.locator("#pool-list"))
        hand.follow(short, within=page.locator("#main table"))
        hand.follow("Open shell")
        page.get_by_label("Reason").fill("looking around")
        page.keyboard.press("Enter")
        expect(page.locator("#term-state")).to_have_text("Open")
        expect(page.locator("#main .lede")).not_to_contain_text("would")
    with hand.task("find a tenant", 0, "Ctrl-K, some letters, Enter"):
        page.keyboard.press("Control+k")
        page.keyboard.type("acme-042")
        expect(page.get_by_role("option").first).to_contain_text("acme-042")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("acme-042")
    with hand.task("release", 2, "names the tenant, the container, and what saves", "/tenants/acme-042/"):
        hand.click("Release")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"acme-042 is disconnected from {short} now")
        hand.click("Save and release", within=dialog)
        expect(page.locator("#main .lede")).to_contain_text("Released", timeout=60_000)
        expect(page.locator("#main .lede")).to_contain_text("saved")
    with hand.task("what happened yesterday", None, "a preset, day headings and a search of texts"):
        hand.follow("Activity", within=page.locator("#nav"))
        hand.follow("Yesterday", within=page.get_by_role("navigation", name="Time"))
        expect(page).to_have_url(re.compile("range=yesterday"))


def test_3_repair_what_fails(hand, deployment):
    page = hand.page
    hand.call("POST", "tenants/acme-042/claim", {"poolId": "notes"}, 201)
    with hand.task("embedded S3 killed", 0, "up restarts it; the save goes through", "/tenants/acme-042/"):
        os.kill(deployment.s3(), signal.SIGKILL)
        hand.call("POST", "tenants/acme-042/sync", {"direction": "outward"}, 202)
        expect(page.get_by_role("table", name="Sync runs")).to_contain_text("Done", timeout=60_000)
    [spec] = hand.call("GET", "sync-specs")["items"]
    right = (Path(deployment.environment["BOILERHOUSE_DATA_DIR"]) / "keys" / "s3-secret-key").read_text().strip()
    wrong = {**spec, "sink": {**spec["sink"], "secretAccessKey": "x" * 40}}
    hand.call("PUT", f"sync-specs/{spec['id']}", wrong, 200)
    hand.call("POST", "tenants/acme-042/release", {})
    with hand.task("wrong key, failed save: find", 1, "on the overview: the cause in words, and what waits for it"):
        need = page.locator(".need", has_text="cannot save").or_(page.locator(".need", has_text="refuse")).first
        expect(need).to_contain_text("1 tenant waits. Its state is safe on this node.", timeout=60_000)
    with hand.task("wrong key, failed save: repair", 3, "saved at once when the key is right, without another click"):
        hand.follow(re.compile("Change the keys"), within=page.locator("#needs"))
        page.locator("[name='/sink/secretAccessKey']").fill(right)
        hand.click("Save sync spec")
        expect(page.locator("#toasts")).to_contain_text("saved")
        eventually(lambda: not hand.call("GET", "tenants/acme-042/status").get("assigned"), 30)
    hand.call("POST", "tenants/acme-042/claim", {"poolId": "notes"}, 201)
    with hand.task("sink that does not answer", 1, "the step and for how long; then that the sink does not answer"):
        os.kill(deployment.s3(), signal.SIGSTOP)
        try:
            hand.call("POST", "tenants/acme-042/release?timeoutMs=1000", {})
            hand.follow("acme-042", within=page.locator("#feed"))
            expect(page.locator("#main .lede")).to_contain_text("Saving the state", timeout=30_000)
            expect(page.locator("#main")).to_contain_text(
                re.compile("cannot be reached|does not answer|did not answer"), timeout=120_000
            )
        finally:
            os.kill(deployment.s3(), signal.SIGCONT)
        eventually(lambda: not hand.call("GET", "tenants/acme-042/status").get("assigned"), 90)


def test_4_repair_what_does_not_start(hand):
    page = hand.page
    for name, about in (("missing", {"image": "boilerhouse/no-such-image:1", "pullPolicy": "never"}),
                        ("ends", {"image": IMAGE, "command": ["sh", "-c", "echo the last words; exit 3"]})):  # fmt: skip
        body = {
            "id": name,
            "name": name,
            "healthCheck": {"command": ["true"]},
            "volumes": {"state": {"containerPath": "/state"}},
        }
        hand.call("POST", "workloads", {**body, **about}, 201)
        hand.call("POST", "pools", {"id": name, "workloadId": name, "minSize": 1, "maxSize": 2}, 201)
    with hand.task("image that does not exist: find", 0, "cause and cure on the overview"):
        need = page.locator(".need", has_text="missing").first
        expect(need).to_contain_text("boilerhouse/no-such-image:1", timeout=60_000)
    with hand.task(
        "image that does not exist: repair", 4, "the button leads to the field; starts by itself afterwards"
    ):
        hand.follow(re.compile("Edit workload"), within=page.locator(".need", has_text="no-such-image"))
        image = page.locator("[name='/image']")
        expect(image).to_be_in_viewport()
        image.fill(IMAGE)
        hand.click("Save workload")
        expect(page.locator("#toasts")).to_contain_text("saved as version 2")
        eventually(lambda: hand.call("GET", "pools/missing")["status"]["idle"], 60)
    with hand.task("container that exits at once", 0, "exit code and last words on the overview"):
        need = page.locator(".need", has_text="ends").first
        expect(need).to_contain_text("exit code 3", timeout=90_000)
        expect(need).to_contain_text("the last words")
    for name in ("missing", "ends"):
        hand.call("DELETE", f"pools/{name}?force=true")


def test_5_steer_a_pool_and_meet_another_operator(hand):
    page = hand.page
    hand.call("POST", "tenants/acme-042/claim", {"poolId": "notes"}, 201)
    with hand.task("scale", 3, "the effect and the limits before; the button names the size"):
        hand.follow("notes", within=page.locator("#pool-list"))
        page.get_by_label("Target size").fill("99")
        expect(page.locator("#effect")).to_contain_text("Enter 2 to 10.")
        page.get_by_label("Target size").fill("5")
        expect(page.locator("#effect")).to_contain_text("Starts")
        hand.click("Scale to 5")
        expect(page.locator("#toasts")).to_contain_text("Scaling notes to 5.")
    with hand.task("pause", 1, "the sentence above says what pausing means", "/pools/notes/"):
        hand.click("Pause refill")
        expect(page.locator("#main .lede")).to_contain_text("Refill is paused.")
    page.get_by_role("button", name="Resume", exact=True).first.click()
    with hand.task("drain", 2, "who stays is said before; Draining, then Drained, with Resume", "/pools/notes/"):
        hand.click("Drain")
        expect(page.get_by_role("dialog")).to_contain_text("1 tenant stays until release.")
        hand.click("Drain pool", within=page.get_by_role("dialog"))
        expect(page.locator("#main .lede")).to_contain_text("New claims are refused until you resume the pool.")
    hand.call("POST", "tenants/acme-042/release", {})
    page.goto(f"{hand.base}/pools/notes/")
    expect(page.locator("#main .lede")).to_contain_text("Drained.", timeout=60_000)
    page.get_by_role("button", name="Resume", exact=True).first.click()
    with hand.task(
        "edit conflict", None, "who, which fields, both values; combined by one click", "/workloads/notes/edit"
    ):
        page.locator("[name='/name']").fill("Notes of mine")
        body = hand.call("GET", "workloads/notes")
        hand.call("PUT", "workloads/notes", {**body, "stopTimeoutMs": 4000}, 200)
        hand.click("Save workload")
        expect(page.locator(".conflict")).to_contain_text("key gateway saved a change")
        hand.click("Combine both")
        hand.click("Save workload")
        expect(page.locator("#toasts")).to_contain_text("saved as version")
    hand.page.problems = []  # type: ignore[attr-defined]


def test_6_no_task_takes_more_clicks_than_it_did(hand):
    assert hand.rows
    assert [row for row in hand.rows if row[1] is not None and row[2] > row[1]] == []
