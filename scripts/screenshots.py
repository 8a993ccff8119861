"""Take the pictures of docs/screenshots from demo data, light and dark, wide and narrow.

usage: screenshots.py [PAGE …]                 only these pages; the others stay
       screenshots.py --into DIRECTORY [PAGE …]  every page, in both themes and widths, for a review
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "screenshots"
CHROMIUM = ["--no-sandbox", "--disable-background-networking"]
MAX_HEIGHT = {1440: 1500, 390: 1800}
"""Longer pages are cut: pictures show what a page is like, not all of its rows."""
DARK_ON_A_PHONE = ("overview", "tenant", "container")
"""The other pages differ there from their light ones by colours alone."""
COLOURS, FREQUENT = 200, 110
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; caret-color: transparent }"

APPLY = "css => { const one = new CSSStyleSheet(); one.replaceSync(css); document.adoptedStyleSheets = [one]; }"
"""The policy of our pages forbids style elements."""

PAGES = {
    "overview": "/", "pools": "/pools/", "pool": "/pools/notes/", "pool-usage": "/pools/notes/?tab=usage&range=24h",
    "pool-configuration": "/pools/notes/?tab=configuration", "tenants": "/tenants/", "tenant": "/tenants/acme-042/",
    "tenant-unsaved": "/tenants/ci:infra/", "sync": "/sync/", "sync-spec": "/sync/specs/build-cache/",
    "workload": "/workloads/notes/", "workload-edit": "/workloads/notes/edit", "activity": "/activity/",
    "search": "/search?q=notes", "settings": "/settings/", "settings-keys": "/settings/keys/",
    "settings-changes": "/settings/changes/", "usage": "/usage/",
}  # fmt: skip
"""The pages of docs/screenshots, besides ``container``."""
OTHERS = {
    "pool-timeline": "/pools/notes/?tab=timeline", "pool-new": "/pools/new", "claim": "/pools/notes/claim",
    "containers": "/containers/", "tenant-released": "/tenants/globex-009/", "sync-specs": "/sync/specs/",
    "sync-spec-new": "/sync/specs/new", "sync-spec-edit": "/sync/specs/notes-state/edit",
    "sync-spec-json": "/sync/specs/notes-state/edit?tab=json", "workloads": "/workloads/",
    "workload-new": "/workloads/new", "workload-versions": "/workloads/notes/?old=1&new=2",
    "workload-json": "/workloads/notes/edit?tab=json", "node": "/settings/node/",
    "settings-credentials": "/settings/credentials/", "credential": "/settings/credentials/main-s3/",
    "registries": "/settings/registries/", "settings-users": "/settings/users/", "account": "/settings/account/",
    "notifications": "/settings/notifications/", "settings-deployment": "/settings/deployment/",
    "password": "/password/", "search-empty": "/search?q=zzz", "missing": "/pools/zzz/",
}  # fmt: skip
LINKED = {
    "container": ("/tenants/acme-042/", "/containers/"),
    "run": ("/tenants/acme-042/", "/sync/runs/"),
    "notification": ("/settings/notifications/", "/settings/notifications/"),
    "user": ("/settings/users/", "/settings/users/"),
}
"""Pages whose address has a random id: where a link to them is, and how it begins."""
SIGNED_OUT = {"login": "/login/"}


def main(into: Path | None, wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "BOILERHOUSE_DATA_DIR": directory}
        command = [sys.executable, str(ROOT / "manage.py"), "demo_data", "--serve", "--port", "0"]
        serving = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert serving.stderr is not None
            link = next(line.split()[-1] for line in serving.stderr if line.startswith("Log in"))
            _take(link, into, wanted)
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(30)


def _take(link: str, into: Path | None, wanted: list[str]) -> None:
    directory = into or PICTURES
    directory.mkdir(parents=True, exist_ok=True)
    base = link.partition("/login/")[0]
    names = set(wanted) or ({*PAGES, *OTHERS, *LINKED, *SIGNED_OUT} if into else {*PAGES, "container"})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        page = browser.new_page(reduced_motion="reduce")
        for name in names & SIGNED_OUT.keys():
            page.goto(base + SIGNED_OUT[name], timeout=60_000)
            _pictures(page, base + SIGNED_OUT[name], directory, name, is_whole=into is not None)
        page.goto(link, timeout=60_000)  # the connection waits until the web process has started
        paths = {name: path for name, path in {**PAGES, **OTHERS}.items() if name in names}
        for name in names & LINKED.keys():
            place, begin = LINKED[name]
            page.goto(base + place)
            own = page.locator(f'#main :is(th, td, dd) a[href^="{begin}"]')
            paths[name] = own.first.get_attribute("href") or ""
        for name, path in sorted(paths.items()):
            _pictures(page, base + path, directory, name, is_whole=into is not None)
        browser.close()


def _pictures(page: Page, url: str, directory: Path, name: str, *, is_whole: bool) -> None:
    for width in MAX_HEIGHT:
        for theme in ("light", "dark"):
            if width == min(MAX_HEIGHT) and theme == "dark" and name not in DARK_ON_A_PHONE and not is_whole:
                continue
            path = directory / f"{name}-{theme}-{width}.png"
            _picture(page, url, path, width, theme)
            if not is_whole:
                _make_smaller(path)


def _picture(page: Page, url: str, path: Path, width: int, theme: str) -> None:
    """The whole page in a window of its height, where bars at the window's edges are at the page's."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(url)
    page.evaluate(APPLY, STILL)
    page.wait_for_timeout(600)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height, MAX_HEIGHT[width])})
    page.wait_for_timeout(200)
    page.screenshot(path=path)


def _make_smaller(path: Path) -> None:
    """Keep the most frequent colours as they are, so that large areas have no tint, and some of the rare ones."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    counted = sorted(picture.getcolors(1 << 24) or [], reverse=True)[:FREQUENT]
    rare = picture.quantize(COLOURS - FREQUENT, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted for part in colour] + rare)
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--into", type=Path)
    arguments.add_argument("pages", nargs="*")
    given = arguments.parse_args()
    main(given.into, given.pages)
