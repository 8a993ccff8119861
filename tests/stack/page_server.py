"""The dashboard of demo data and of ``tests.page_world``, for tests that need pages and no containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.page_mover import Mover
from tests.stack.chromium import noted

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class PageServer:
    base: str
    mover: Mover
    page: Page
    """Signed in as admin."""

    def open(self, path: str) -> None:
        """Whatever the page was about to load is given up."""
        try:
            self.page.goto(self.base + path)
        except Error:
            self.page.wait_for_timeout(300)
            self.page.goto(self.base + path)


@pytest.fixture(scope="module")
def served(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A web process alone, with demo data and one object of each kind in each state."""
    environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(tmp_path_factory.mktemp("pages"))}
    environment.pop("DATABASE_URL", None)
    command = [sys.executable, str(ROOT / "manage.py"), "demo_data", "--serve", "--port", "0"]
    serving = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert serving.stderr is not None
        link = next(line.split()[-1] for line in serving.stderr if line.startswith("Log in"))
        mover = Mover.start({**environment, "DJANGO_SETTINGS_MODULE": "boilerhouse.operations.demo_data.settings"})
        # Without motion, no colour is on its way to another while axe looks. Other tabs are opened in its context.
        page = noted(browser.new_context(reduced_motion="reduce").new_page())
        try:
            mover.tell("build")
            page.goto(link, timeout=60_000)  # the connection waits until the web process has started
            yield PageServer(link.partition("/login/")[0], mover, page)
        finally:
            page.context.close()
            mover.stop()
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(30)
