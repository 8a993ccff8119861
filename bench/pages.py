"""Pages with 500 containers and 5,000 events: the server's time, a real Chromium's, and ten minutes of live updates.

Rows only, no containers: the controller and the workers are halted meanwhile, so that nobody heals them away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import requests

from bench import figures
from bench.server import MANAGE, Server

CONTAINERS, EVENTS, RUNS = 500, 5000, 500
ROUNDS, LOADS, SEEN = 20, 8, 15
GROWTH_S, UPDATES_PER_S = 600, 5
TARGETS_MS = {"server": 100, "firstLoad": 400, "navigation": 150}
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
FIRST = ("an empty view", "overview", "pool", "activity")
WATCH = """() => {
    window.seen = {};
    new MutationObserver(() => {
        for (const word of document.body.textContent.match(/seen-\\d\\d/g) || []) window.seen[word] ??= Date.now();
    }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""
NAVIGATION = "performance.getEntriesByType('navigation')[0]"


@contextmanager
def seeded(supervisor: int) -> Iterator[dict[str, Any]]:
    """The rows, and nobody at work on them: neither those who would, nor the one who would start them anew."""
    from django.utils import timezone

    from boilerhouse.core.deployment import node_id
    from boilerhouse.core.models import Event, Process
    from boilerhouse.process import processes
    from pools.models import Container, Pool
    from syncing.models import SyncRun
    from tenants.models import Assignment, Tenant
    from tests.make import make_pool, make_sync_spec, make_workload

    quiet = [Process.Kind.WORKER, Process.Kind.CONTROLLER]
    halted = list(Process.objects.filter(pk__in=processes.living(), kind__in=quiet).values_list("pid", flat=True))
    halted.insert(0, supervisor)
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    try:
        workload, now = make_workload("pages"), timezone.now()
        pool = make_pool("pages", workload=workload, max_size=CONTAINERS, min_size=0, min_idle=0)
        spec = make_sync_spec(pool, id="pages", interval_ms=300_000)
        version = workload.latest
        containers = [
            Container(
                pool=pool, version=version, node_id=node_id(), uid=300_000 + number, health="healthy",
                state="claimed" if number % 2 else "idle", disk_bytes=number * 1000,
            )
            for number in range(CONTAINERS)
        ]  # fmt: skip
        Container.objects.bulk_create(containers)
        held = containers[1::2]
        Tenant.objects.bulk_create([Tenant(id=f"pages-{number:03}", generation=1) for number in range(len(held))])
        Assignment.objects.bulk_create(
            Assignment(
                tenant_id=f"pages-{number:03}", pool=pool, generation=1, state="assigned", deadline=now,
                version=version, container=one, container_ref=one.pk, uid=one.uid, assigned_at=now, latency_ms=9,
            )
            for number, one in enumerate(held)
        )  # fmt: skip
        SyncRun.objects.bulk_create(
            SyncRun(
                spec=spec, tenant_id=f"pages-{number % len(held):03}", generation=1, direction="upload",
                trigger="interval", state="succeeded", started_at=now, finished_at=now - timedelta(minutes=number),
                progress={"bytes": 10_000 * number, "files": 3},
            )
            for number in range(RUNS)
        )  # fmt: skip
        Event.objects.bulk_create(
            Event(
                type="container.claimed", pool_id=pool.pk, tenant_id=f"pages-{number % len(held):03}",
                actor="key bench",
                container_id=str(held[number % len(held)].pk), payload={"source": "warm", "latencyMs": 9},
            )
            for number in range(EVENTS)
        )  # fmt: skip
        yield {"pool": pool.pk, "container": str(held[0].pk), "tenant": "pages-000"}
    finally:
        Assignment.objects.filter(pool_id="pages").delete()
        Container.objects.filter(pool_id="pages").delete()
        Pool.objects.filter(pk="pages").delete()
        for pid in halted:
            with suppress(ProcessLookupError):  # it lost its lease meanwhile, and ended as it should
                os.kill(pid, signal.SIGCONT)


def sign_in(base: str) -> requests.Session:
    """A session of an admin's."""
    made = [*MANAGE, "login_link", "--create", "--user", "bench"]
    link = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
    session = requests.Session()
    if session.get(link if link.startswith("http") else base + link, timeout=30).status_code != 200:
        raise SystemExit("the bench could not sign in")
    return session


def measure(server: Server) -> dict[str, Any]:
    """Every page by a kept connection; then loads and navigations in Chromium."""
    base = server.api.base
    session = sign_in(base)
    with seeded(server.supervisor) as names:
        pages = {
            "overview": "/", "pools": "/pools/", "pool": f"/pools/{names['pool']}/",
            "pool, page 5 by age": f"/pools/{names['pool']}/?sort=-age&page=5",
            "pool, usage": f"/pools/{names['pool']}/?tab=usage", "tenants": "/tenants/",
            "tenant": f"/tenants/{names['tenant']}/", "sync": "/sync/", "workloads": "/workloads/",
            "activity": "/activity/", "activity, searched": "/activity/?q=pages-01", "settings": "/settings/",
        }  # fmt: skip
        answers = {}
        for name, path in {"an empty view": "/health", **pages}.items():
            times = []
            for _ in range(ROUNDS + 3):
                began = time.perf_counter()
                answer = session.get(base + path, timeout=30)
                times.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    raise SystemExit(f"{path} answered {answer.status_code}")
            answers[name] = {**figures.of([times[3:]]), "kB": round(len(answer.content) / 1000, 1)}
        browser = _browser(base, session, pages)
    return {"containers": CONTAINERS, "events": EVENTS, "server": answers, **browser, "targetsMs": TARGETS_MS}


def _cookies(base: str, session: requests.Session) -> list[Any]:
    return [{"name": one.name, "value": str(one.value), "url": base} for one in session.cookies]


def _browser(base: str, session: requests.Session, pages: dict[str, str]) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    first: dict[str, Any] = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        for name, path in {"an empty view": "/health", **pages}.items():
            if name not in FIRST:
                continue
            times = []
            for _ in range(LOADS + 1):
                context = chromium.new_context()  # nothing is cached
                context.add_cookies(_cookies(base, session))
                page = context.new_page()
                page.goto(base + path)
                times.append(float(page.evaluate(f"{NAVIGATION}.domContentLoadedEventEnd")))
                context.close()
            first[name] = figures.of([times[1:]])
        context = chromium.new_context()
        context.add_cookies(_cookies(base, session))
        page = context.new_page()
        page.goto(base + pages["overview"])
        seen = _seen(page)
        times = []
        for _ in range(LOADS):
            for label in ("Pools", "Tenants", "Sync", "Activity", "Overview"):
                page.locator("#nav").get_by_role("link", name=label).first.click()
                page.wait_for_load_state("domcontentloaded")
                times.append(float(page.evaluate(f"{NAVIGATION}.domContentLoadedEventEnd")))
        chromium.close()
    return {"firstLoad": first, "navigation": figures.of([times]), "eventToBrowser": figures.of([seen])}


def _seen(page: Any) -> list[float]:
    """Milliseconds from the commit of an event until the feed of the open overview shows it."""
    from boilerhouse.core.events import emit

    page.locator("#conn.t-ok").wait_for(timeout=10_000)
    page.evaluate(WATCH)
    times = []
    for number in range(SEEN):
        word = f"seen-{number:02}"
        page.wait_for_timeout(500 + 37 * number % 100)
        emit("pool.scaled", pool_id=word, before=0, targetSize=number)
        committed = time.time()
        # The pages' policy forbids Playwright's own way to wait for a function.
        while (shown := page.evaluate(f"window.seen[{word!r}]")) is None:
            if time.time() > committed + 10:
                raise SystemExit(f"{word} was not shown within 10 s")
            page.wait_for_timeout(50)
        times.append(shown - committed * 1000)
    return times


def measure_growth(server: Server, seconds: int = GROWTH_S) -> dict[str, Any]:
    """The overview, a pool and activity stay open while events come; what the browser and the web process hold."""
    from django.db import connection
    from playwright.sync_api import sync_playwright

    from boilerhouse.core.events import emit

    base = server.api.base
    session, over = sign_in(base), threading.Event()
    sent = [0]

    def write() -> None:
        try:
            while not over.wait(1 / UPDATES_PER_S):
                emit("pool.scaled", pool_id="pages", before=1, targetSize=sent[0])
                sent[0] += 1
        finally:
            connection.close()

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with seeded(server.supervisor) as names, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*CHROMIUM, "--js-flags=--expose-gc"]
        )
        context = chromium.new_context()
        context.add_cookies(_cookies(base, session))
        opened = {}
        for name, path in (
            ("overview", "/"),
            ("pool", f"/pools/{names['pool']}/"),
            ("usage", f"/pools/{names['pool']}/?tab=usage"),
            ("activity", "/activity/"),
        ):
            page = context.new_page()
            page.goto(base + path)
            opened[name] = (page, context.new_cdp_session(page))
        writer = threading.Thread(target=write)
        writer.start()
        try:
            marks = []
            for share in (0.1, 1.0):
                until = time.monotonic() + seconds * (share if not marks else 0.9)
                while time.monotonic() < until:
                    for page, _ in opened.values():
                        page.bring_to_front()  # a hidden page does not refresh
                        page.wait_for_timeout(1500)
                marks.append({name: _held(cdp) for name, (_, cdp) in opened.items()} | {"webKb": server.memory_kb()})
        finally:
            over.set()
            writer.join()
            chromium.close()
    return {"seconds": seconds, "updates": sent[0], "afterTenth": marks[0], "atEnd": marks[1]}


def _held(cdp: Any) -> dict[str, int]:
    cdp.send("HeapProfiler.collectGarbage")
    counters = cdp.send("Memory.getDOMCounters")
    heap = cdp.send("Runtime.getHeapUsage")["usedSize"]
    return {"heapKb": round(heap / 1024), "nodes": counters["nodes"], "listeners": counters["jsEventListeners"]}


def table(found: dict[str, Any]) -> list[str]:
    lone = found["server"]["an empty view"]
    head = f"pages, {found['containers']} containers, {found['events']} events"
    rows = [f"{head:<50}{'p50':>10}{'p95':>10}{'kB':>8}{'ratio p50':>11}"]
    for name, one in found["server"].items():
        ratio = one["p50Ms"] / lone["p50Ms"]
        rows.append(f"  {name:<48}{one['p50Ms']:>10}{one['p95Ms']:>10}{one['kB']:>8}{ratio:>11.1f}")
    for name, one in found["firstLoad"].items():
        rows.append(f"{'first load interactive in Chromium, ' + name:<50}{one['p50Ms']:>10}{one['p95Ms']:>10}")
    one = found["navigation"]
    rows.append(f"{'navigation in Chromium':<50}{one['p50Ms']:>10}{one['p95Ms']:>10}")
    one = found["eventToBrowser"]
    rows.append(f"{'event to the open page Activity in Chromium':<50}{one['p50Ms']:>10}{one['p95Ms']:>10}")
    worst = max(one["p95Ms"] for one in found["server"].values())
    slowest = max(one["p95Ms"] for one in found["firstLoad"].values())
    for label, figure, target in (
        ("server time of the slowest page", worst, found["targetsMs"]["server"]),
        ("first load", slowest, found["targetsMs"]["firstLoad"]),
        ("navigation", found["navigation"]["p95Ms"], found["targetsMs"]["navigation"]),
    ):
        rows.append(f"target p95, {label}: ≤ {target} ms: {'met' if figure <= target else 'not met'} ({figure})")
    return rows


def growth_table(found: dict[str, Any]) -> list[str]:
    head = f"live pages, {found['seconds']} s, {found['updates']} updates"
    rows = [f"{head:<40}{'after a tenth':>16}{'at the end':>16}"]
    for name, after in found["atEnd"].items():
        before = found["afterTenth"][name]
        if name == "webKb":
            rows.append(f"  {'web process, kB':<38}{before:>16}{after:>16}")
            continue
        for key in ("heapKb", "nodes", "listeners"):
            rows.append(f"  {name + ', ' + key:<38}{before[key]:>16}{after[key]:>16}")
    return rows
