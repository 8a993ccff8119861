"""A real Chromium on the running stack, for the tests of pages."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser, Page, expect, sync_playwright

from boilerhouse.core.models import Process
from boilerhouse.process import processes
from tests.stack.conftest import Stack, manage

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
PASSWORD = "a long password of a test"
FIVE_TIMES_PROMISED_MS = 5000
expect.set_options(timeout=30_000)  # what is so at once is found at once; a busy machine may take longer than 5 s


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # Playwright's loop runs in this thread; the tests are not async
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()
    os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE")


def watched(browser: Browser, **options: Any) -> Page:
    return noted(browser.new_page(viewport={"width": 1440, "height": 900}, **options))


def noted(page: Page) -> Page:
    """The page; its errors are in its ``problems`` from now on."""
    page.problems = []  # type: ignore[attr-defined]
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
    return page


@pytest.fixture(scope="module")
def admins_page(stack: Stack, browser: Browser) -> Iterator[Page]:
    """Signed in by the one-time link."""
    made = manage("login_link", "--create", "--user", "tester")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(stack.base)
    page = watched(browser)
    page.goto(made.stdout.strip())
    yield page
    page.close()


@pytest.fixture
def page(admins_page: Page, pools: Any) -> Iterator[Page]:
    """It has no error and no violation of the policy, and leaves before the pools that it shows are removed."""
    yield admins_page
    admins_page.goto("about:blank")
    problems, admins_page.problems = admins_page.problems, []  # type: ignore[attr-defined]
    assert problems == []


def member(name: str, group: str) -> User:
    User.objects.filter(username=name).delete()
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    user.groups.add(Group.objects.get_or_create(name=group)[0])
    return user


def sign_in(stack: Stack, page: Page, name: str, password: str = PASSWORD) -> None:
    page.goto(f"{stack.base}/login/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@contextlib.contextmanager
def without_web(stack: Stack) -> Iterator[None]:
    """The web process is killed. Within the block no other runs: ``up``, which is stopped, would start one in less time
    than a page waits before it says so."""
    web = Process.objects.filter(pk__in=processes.living(), kind=Process.Kind.WEB).latest("started_at")
    os.kill(stack.up.pid, signal.SIGSTOP)
    try:
        os.kill(web.pid, signal.SIGKILL)
        yield
    finally:
        os.kill(stack.up.pid, signal.SIGCONT)


def live(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#conn")).to_have_text("Live")
