"""The overview in a real Chromium: rows change by themselves within a second of another process's change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.stack.conftest import Stack, manage

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    made = manage("login_link", "--create", "--user", "tester")
    assert made.returncode == 0, made.stderr
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.problems = []  # type: ignore[attr-defined]
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
        page.goto(stack.base + made.stdout.strip())
        yield page
        browser.close()


def test_a_claim_made_elsewhere_shows_within_a_second(stack, pools, page):
    pool = pools(warm=2, maxSize=4)
    page.goto(stack.base + "/")
    expect(page.locator("#conn")).to_have_text("Live")
    row = page.locator(f"#pool-{pool}")
    expect(row.get_by_text("2 idle")).to_be_visible()
    claimed = stack.claim("live-1", pool)
    started = time.monotonic()
    expect(row.get_by_text("1 claimed")).to_be_visible(timeout=5000)
    took = time.monotonic() - started
    expect(page.locator("#feed")).to_contain_text("live-1 claimed")

    print(f"row changed {took * 1000:.0f} ms after the claim's answer")
    assert took < 5  # promised: 1 s; figures belong to the bench
    stack.release("live-1")
    expect(row.get_by_text("0 claimed")).to_be_visible(timeout=5000)
    assert claimed
    assert page.problems == []  # no error, and no violation of the content security policy


def test_a_new_pool_appears_and_a_deleted_one_goes(stack, pools, page):
    page.goto(stack.base + "/")
    expect(page.locator("#conn")).to_have_text("Live")
    pool = pools(warm=1)
    expect(page.locator(f"#pool-{pool}")).to_be_visible(timeout=5000)
    stack.drop_pool(pool)
    expect(page.locator(f"#pool-{pool}")).to_have_count(0, timeout=15000)


@pytest.mark.any_database
def test_the_socket_turns_strangers_away(stack):
    import asyncio

    import websockets

    async def connect() -> int:
        url = stack.base.replace("http", "ws") + "/ws/pages/overview"
        async with websockets.connect(url, origin=stack.base) as socket:
            try:
                await asyncio.wait_for(socket.recv(), 5)
            except websockets.ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 0
        return 0

    with ThreadPoolExecutor(1) as apart:  # Playwright's loop runs in this thread
        assert apart.submit(lambda: asyncio.run(connect())).result() == 4401


@pytest.mark.any_database
def test_the_page_fits_narrow_and_dark_and_its_controls_have_names(stack, pools, page, tmp_path):
    pool = pools(warm=2, maxSize=6)
    stack.claim("shot-1", pool)
    shots = os.environ.get("BOILERHOUSE_SCREENSHOTS", tmp_path)
    for theme in ("light", "dark"):
        for width in (1440, 390):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(stack.base + "/")
            expect(page.locator(f"#pool-{pool}")).to_be_visible()
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, (theme, width)
            page.screenshot(path=f"{shots}/overview-{theme}-{width}.png", full_page=True)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('a,button,input')].filter(e => !(e.textContent.trim() || e.title"
        " || e.getAttribute('aria-label') || e.labels?.length || e.type === 'hidden')).map(e => e.outerHTML)"
    )
    assert unnamed == []
    page.set_viewport_size({"width": 1440, "height": 900})
