"""What pages weigh on the wire, cold and while they are open, and how far they shift, while twelve tenants are saved.

Everything is real: containers, saves to S3, a Chromium per page behind a proxy that counts bytes.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any
from uuid import UUID

import requests

from bench.load import Tenants
from bench.pages import CHROMIUM, sign_in
from bench.periodic import change_file
from bench.server import Server
from bench.wire import Wire, counting

TENANTS, INTERVAL_S, SECONDS = 12, 15, 45
LOAD_S, SETTLE_S = 1, 3
"""How long a page that has loaded may receive what belongs to the first visit, and then until it counts as open."""
TARGETS = {"coldKb": 90, "liveKbPerS": 10, "shift": 0.05}
REQUESTS = "performance.getEntriesByType('resource').length"
SHIFTS = """() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts.push([one.startTime, one.value]);
    }).observe({type: "layout-shift", buffered: true});
}"""


def measure(server: Server) -> dict[str, Any]:
    tenants = Tenants(server, "weight", interval_ms=INTERVAL_S * 1000)
    tenants.size(TENANTS, TENANTS)
    claimed = [tenants.claim(f"weight-{number:02}") for number in range(TENANTS)]
    over = threading.Event()
    writer = threading.Thread(target=_keep_changing, args=([one["containerId"] for one in claimed], over))
    writer.start()
    try:
        paths = {
            "overview": "/",
            "pool": f"/pools/{tenants.pool}/",
            "pool, usage": f"/pools/{tenants.pool}/?tab=usage",
            "tenants": "/tenants/",
            "tenant": "/tenants/weight-00/",
            "container": f"/containers/{claimed[0]['containerId']}/",
            "containers": "/containers/",
            "sync": "/sync/",
            "sync spec": f"/sync/specs/{tenants.spec_id}/",
            "activity": "/activity/",
        }
        pages = weigh(server.api.base, sign_in(server.api.base), paths)
    finally:
        over.set()
        writer.join()
    tenants.end()
    return {"tenants": TENANTS, "intervalS": INTERVAL_S, "seconds": SECONDS, "pages": pages, "targets": TARGETS}


def _keep_changing(containers: list[str], over: threading.Event) -> None:
    """Each has something to save each time."""
    from pools import volumes

    states = [volumes.volume_path(UUID(one), "state") for one in containers]
    while not over.wait(INTERVAL_S / 2):
        for state in states:
            change_file(state, 0)


def weigh(base: str, session: requests.Session, paths: dict[str, str], seconds: float = SECONDS) -> dict[str, Any]:
    """Kilobytes received by a browser that knows nothing, its first refresh included; then both ways per second, and
    the shifts of the layout."""
    from playwright.sync_api import sync_playwright

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    found: dict[str, Any] = {}
    with sync_playwright() as playwright, counting(base, len(paths)) as wires:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        opened = {}
        for wire, (name, path) in zip(wires, paths.items(), strict=True):
            opened[name] = page = _opened(chromium, session, wire, path)
            cold = wire.received
            page.wait_for_timeout(SETTLE_S * 1000)
            if page.evaluate("document.hidden"):
                raise SystemExit(f"the page {name} is hidden, and would not be refreshed")
            found[name] = {"coldKb": round(cold / 1000, 1), "shift": _shift(page)}
        before, began = [wire.both() for wire in wires], time.monotonic()
        requested = {name: page.evaluate(REQUESTS) for name, page in opened.items()}
        next(iter(opened.values())).wait_for_timeout(seconds * 1000)
        took = time.monotonic() - began
        for wire, at_start, (name, page) in zip(wires, before, opened.items(), strict=True):
            found[name]["liveKbPerS"] = round((wire.both() - at_start) / 1000 / took, 2)
            count = page.evaluate(REQUESTS) - requested[name]
            found[name]["requestsPerS"] = round(count / took, 2)
            found[name]["liveShift"] = _shift(page)
        chromium.close()
    return found


def _opened(chromium: Any, session: requests.Session, wire: Wire, path: str) -> Any:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies([{"name": one.name, "value": str(one.value), "url": wire.base} for one in session.cookies])
    page = context.new_page()
    page.add_init_script(f"({SHIFTS})()")
    page.add_init_script("performance.setResourceTimingBufferSize(100000)")
    answer = page.goto(wire.base + path)
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}")
    page.wait_for_timeout(LOAD_S * 1000)
    return page


def _shift(page: Any) -> float:
    """The cumulative layout shift so far, as browsers report it: the worst window of at most five seconds."""
    worst = total = began = last = 0.0
    for at, value in page.evaluate("window.shifts"):
        if at - last > 1000 or at - began > 5000:
            total, began = 0.0, at
        total, last = total + value, at
        worst = max(worst, total)
    return round(worst, 3)


def table(found: dict[str, Any]) -> list[str]:
    head = f"pages on the wire, {found['tenants']} tenants saved every {found['intervalS']} s"
    rows = [f"{head:<50}{'cold kB':>10}{'live kB/s':>11}{'requests/s':>12}{'shift':>8}{'later':>8}"]
    for name, one in found["pages"].items():
        figures = f"{one['coldKb']:>10}{one['liveKbPerS']:>11}{one['requestsPerS']:>12}"
        rows.append(f"  {name:<48}{figures}{one['shift']:>8}{one['liveShift']:>8}")
    return rows
