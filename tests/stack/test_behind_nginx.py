"""Real nginx with the example of deploy/, real web processes, real Chromium: TLS on another port, below a path, and what
the node itself asks meanwhile. No worker and no engine: pages, sockets and the API's rows are enough."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from boilerhouse.operations.supervisor import free_port
from tests.nginx import NAME, ROOT, Nginx
from tests.stack.chromium import CHROMIUM, FIVE_TIMES_PROMISED_MS, PASSWORD
from tests.stack.conftest import eventually
from tests.stack.machines import Machine

pytestmark = pytest.mark.any_database
TOKEN = "the scraper's token"
BEHIND = {"BOILERHOUSE_HTTPS": "true", "BOILERHOUSE_ALLOWED_HOSTS": NAME, "BOILERHOUSE_METRICS_TOKEN": TOKEN}
FORWARD = "proxy_pass http://boilerhouse"
LOST = ("    proxy_set_header X-Forwarded-Proto $scheme;", "        #")


@dataclass
class Site:
    """Web processes of one deployment, at its root and below ``/bh``, and nginx in front of them."""

    machine: Machine
    key: str
    port: int
    below: int
    directory: Path
    started: list[Any] = field(default_factory=list)

    def nginx(self, port: int, *edits: tuple[str, str]) -> Nginx:
        made = Nginx(Path(tempfile.mkdtemp(prefix="nginx-", dir=self.directory)), (port, port), edits)
        self.started.append(made)
        return made

    def ask(self, nginx: Nginx, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        given = {"Host": f"{NAME}:{nginx.port}", "Authorization": f"Bearer {self.key}", **headers}
        return requests.request(
            method, nginx.url + path, json=body, headers=given, verify=str(nginx.certificate), timeout=20,
            allow_redirects=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    machine = Machine(directory / "machine")
    machine.environment |= BEHIND
    machine.manage("migrate", "-v", "0")
    machine.environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    machine.manage("createsuperuser", "--noinput", "--username", "ada", "--email", "a@example.com")
    key = machine.manage("create_api_key", "--name", "k", "--role", "admin").strip()
    made = Site(machine, key, free_port(), free_port(), directory)
    processes = []
    for port, base in ((made.port, ""), (made.below, "/bh")):
        with machine.log.open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(ROOT / "manage.py"), "run_web", "--host", "0.0.0.0", "--port", str(port)],
                    env={**machine.environment, "BOILERHOUSE_BASE_PATH": base}, stdout=log, stderr=log,
                )
            )  # fmt: skip
    try:
        for port in (made.port, made.below):
            eventually(lambda port=port: answers(port), 60, 0.2)
        yield made
    finally:
        for nginx in made.started:
            nginx.stop()
        for process in processes:
            process.terminate()
            process.wait(20)
        machine.lose()


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/api/v1/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def outside() -> Iterator[Browser]:
    """A browser that resolves the name to this machine."""
    with sync_playwright() as playwright:
        arguments = [*CHROMIUM, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(outside: Browser) -> Iterator[Page]:
    """A page of a new visitor, which records its requests and errors."""
    visit = outside.new_context(ignore_https_errors=True)
    page = visit.new_page()
    page.asked, page.problems, page.sockets = [], [], []  # type: ignore[attr-defined]
    page.on("response", lambda answer: page.asked.append((answer.status, answer.url)))  # type: ignore[attr-defined]
    page.on("websocket", lambda opened: page.sockets.append(opened.url))  # type: ignore[attr-defined]
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)  # type: ignore[attr-defined]
    yield page
    visit.close()


def sign_in(page: Page, root: str) -> None:
    page.goto(f"{root}/login/")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#conn")).to_have_text("Live", timeout=10_000)


def see_a_pool_come(site: Site, nginx: Nginx, page: Page, base: str, name: str) -> None:
    """It is created through the API behind the proxy, and appears before the page's own refresh (10 s)."""
    made = site.ask(nginx, "POST", f"{base}/api/v1/workloads", {"id": name, "name": name, "image": "x:1"})
    assert made.status_code == 201, made.text
    page.goto(f"{nginx.named}{base}/pools/")
    expect(page.locator("#conn")).to_have_text("Live", timeout=10_000)
    made = site.ask(nginx, "POST", f"{base}/api/v1/pools", {"id": name, "workloadId": name, "minSize": 0})
    assert made.status_code == 201, made.text
    expect(page.locator(f"#pool-{name}")).to_be_visible(timeout=FIVE_TIMES_PROMISED_MS)


def test_everything_works_with_tls_on_another_port(site, page):
    """The example forwarded the host without its port, so every form was refused."""
    nginx = site.nginx(site.port)
    sign_in(page, nginx.named)
    see_a_pool_come(site, nginx, page, "", "other-port")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.url == f"{nginx.named}/pools/", "back where the button was"
    assert page.sockets
    assert all(one.startswith(f"wss://{NAME}:{nginx.port}/ws/") for one in page.sockets)
    assert all(cookie["secure"] for cookie in page.context.cookies())
    assert page.problems == []


OFF = pytest.param("off", marks=pytest.mark.long)  # the walk of "on" once more: some seconds


@pytest.mark.parametrize("passes", ["on", OFF])
def test_everything_works_below_a_path(site, page, passes):
    """Links, files, scripts and sockets lacked the base path; the proxy may keep or strip it."""
    edit = ("location / {", "location /bh/ {")
    if passes == "off":
        edit = (f"{edit[0]}\n        {FORWARD};", f"{edit[1]}\n        {FORWARD}/;")
    nginx = site.nginx(site.below, edit, ("^/(api/v1/", "^/bh/(api/v1/"))
    root = f"{nginx.named}/bh"
    page.goto(f"{root}/pools/")
    assert page.url == f"{root}/login/?next=/bh/pools/"
    sign_in(page, root)
    see_a_pool_come(site, nginx, page, "/bh", f"below-{passes}")
    links = page.eval_on_selector_all(
        "a[href], form[action]", "all => all.map((one) => one.getAttribute('href') || one.getAttribute('action'))"
    )
    assert links
    assert [one for one in links if not one.startswith(("/bh/", "#", "?"))] == []
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page).to_have_url(f"{root}/workloads/")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.url == f"{root}/workloads/"
    page.goto(f"{root}/admin/")
    expect(page.get_by_role("link", name="Process", exact=False).first).to_be_visible()
    assert page.get_by_role("link", name="Back to the dashboard").get_attribute("href").rstrip("/") == "/bh"
    page.goto(f"{root}/api/v1/docs")
    expect(page.get_by_text("/api/v1/pools", exact=True).first).to_be_visible(timeout=15_000)
    assert site.ask(nginx, "GET", "/bh/api/v1/openapi.json").json()["servers"] == [{"url": "/bh"}]
    page.goto(f"{root}/nothing/here")
    expect(page.get_by_role("link", name="Go to the overview")).to_have_attribute("href", "/bh/")
    page.goto(f"{root}/")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile(f"^{root}/login/"))
    assert [url for _, url in page.asked if not url.startswith((f"{root}/", "data:"))] == []
    assert [one for one in page.asked if one[0] >= 400 and "/nothing/here" not in one[1]] == []
    assert [one for one in page.problems if "404" not in one] == []
    assert page.sockets
    assert all(one.startswith(f"wss://{NAME}:{nginx.port}/bh/ws/") for one in page.sockets)
    assert {cookie["path"] for cookie in page.context.cookies()} == {"/bh"}


def test_below_a_path_the_node_still_asks_at_the_root(site):
    """Health checks and scrapers know no path."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/api/v1/health", "/bh/api/v1/health", "/health"):
        assert requests.get(f"http://127.0.0.1:{site.below}{path}", timeout=10).status_code == 200
    assert requests.get(f"http://127.0.0.1:{site.below}/metrics", headers=bearer, timeout=10).status_code == 200


@pytest.mark.long  # two commands start: some seconds
def test_commands_know_the_path(site):
    """A link to sign in has it, and a path that leads to two places starts nothing."""
    site.machine.environment["BOILERHOUSE_BASE_PATH"] = "/bh"
    try:
        assert "/bh/login/" in site.machine.manage("login_link", "--user", "ada")
        site.machine.environment["BOILERHOUSE_BASE_PATH"] = "/pools"
        assert "BOILERHOUSE_BASE_PATH" in site.machine.manage("run_web", "--port", "1", code=1)
    finally:
        del site.machine.environment["BOILERHOUSE_BASE_PATH"]


def test_a_client_names_no_root_path(site):
    """Daphne takes one from a header of the client's, and links, cookies and redirects followed it."""
    nginx = site.nginx(site.port)
    for root in ("/evil", "//evil.example", "/api"):
        answer = site.ask(nginx, "GET", "/pools/", **{"Daphne-Root-Path": root})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login/?next=/pools/")
        assert site.ask(nginx, "GET", "/api/v1/health", **{"Daphne-Root-Path": root}).status_code == 200


def test_a_lost_header_is_named_and_nothing_turns_in_a_circle(site, page):
    """nginx without X-Forwarded-Proto, and a second proxy that overwrites it."""
    nginx = site.nginx(site.port, LOST)
    page.goto(f"{nginx.named}/login/")
    expect(page.locator("body")).to_contain_text("has no X-Forwarded-Proto header")
    expect(page.locator("body")).to_contain_text("BOILERHOUSE_HTTPS")
    assert site.ask(nginx, "GET", "/api/v1/pools").json()["code"] == "tls_required"
    inner = site.nginx(site.port, ("X-Forwarded-Proto $scheme;", "X-Forwarded-Proto http;"))
    page.goto(f"{inner.named}/login/")
    expect(page.locator("body")).to_contain_text("overwrites the header")
    assert len([url for _, url in page.asked if url == f"{inner.named}/login/"]) == 2


def test_a_host_without_its_port_is_named_with_what_to_set(site, page):
    """As the example was before."""
    nginx = site.nginx(site.port, ("Host              $http_host;", "Host $host;"))
    page.goto(f"{nginx.named}/login/")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("body")).to_contain_text(f"at {nginx.named}")
    expect(page.locator("body")).to_contain_text("BOILERHOUSE_TRUSTED_ORIGINS")


def test_a_socket_is_opened_by_our_pages_and_over_tls_only(site):
    """Not by another port of the same name, where a tenant's page may be; with a key only over TLS."""
    nginx = site.nginx(site.port)

    def ask(address: str, **headers: str) -> str:
        port = urlsplit(address).port
        trust = ssl.create_default_context(cafile=str(nginx.certificate)) if address.startswith("wss") else None
        line = socket.create_connection(("127.0.0.1", port), timeout=10)
        try:
            with connect(address, sock=line, ssl=trust, additional_headers=headers) as opened:
                try:
                    return str(opened.recv(2))
                except TimeoutError:
                    return "open"
        except InvalidStatus as refused:
            return str(refused.response.status_code)

    bearer = {"Authorization": f"Bearer {site.key}"}
    over = f"wss://{NAME}:{nginx.port}/ws/events"
    assert ask(over, Origin=f"https://{NAME}:{nginx.port + 1}") == "403"
    assert "No API key" in ask(over, Origin=nginx.named)
    assert ask(over, **bearer) == "open"
    assert "X-Forwarded-Proto" in ask(f"ws://{NAME}:{site.port}/ws/events", **bearer)


def test_the_image_the_runbook_and_prometheus_ask_the_node_as_they_are_written(site):
    """Each of them got 400, or a redirect to TLS that the process does not speak. No proxy for sinks is asked."""
    given = re.search(r"^HEALTHCHECK .*\\\n +(\[.*\])$", (ROOT / "Dockerfile").read_text(), flags=re.M)
    assert given
    program, *arguments = json.loads(given[1])
    environment = {**os.environ, "BOILERHOUSE_PORT": str(site.port), "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert (program, done.returncode) == ("python", 0), done.stderr
    asked = re.findall(r"`curl (127\.0\.0\.1:\d+\S+)`", (ROOT / "docs" / "runbook.md").read_text())
    assert asked
    for address in asked:
        path = address.partition("/")[2]
        done = subprocess.run(["curl", "-sf", f"127.0.0.1:{site.port}/{path}"], capture_output=True, check=False)
        assert done.returncode == 0, address
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    address = f"http://{target.partition(':')[0]}:{site.port}{job['metrics_path']}"
    scraped = requests.get(address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10, allow_redirects=False)
    assert scraped.status_code == 200
    assert "boilerhouse_processes" in scraped.text


def test_from_outside_nothing_passes_for_the_node(site):
    """Not through the proxy by a loopback name, not past it, whatever is claimed."""
    nginx = site.nginx(site.port)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    claims = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Real-IP": "127.0.0.1"}
    for path in ("/metrics", "/api/v1/health", "/health"):
        for host in ("127.0.0.1", "localhost", f"127.0.0.1:{site.port}", "[::1]"):
            assert site.ask(nginx, "GET", path, Host=host, **bearer).status_code == 400
            assert site.ask(nginx, "GET", path, Host=host, **bearer, **claims).status_code == 400
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(("192.0.2.1", 9))
        here = route.getsockname()[0]
    if here.startswith("127."):
        pytest.skip("this machine has no other address")
    for claimed in ({}, {"X-Forwarded-For": "127.0.0.1"}):
        for host in ("127.0.0.1", NAME):
            headers = {"Host": host, **bearer, **claimed}
            found = requests.get(f"http://{here}:{site.port}/metrics", headers=headers, timeout=10)
            assert found.status_code in (400, 403), (host, claimed)
    for path in ("/login/", "/api/v1/pools", "/static/app.js"):
        found = requests.get(f"http://127.0.0.1:{site.port}{path}", timeout=10, allow_redirects=False)
        assert found.status_code == 403


def test_an_event_stream_comes_as_it_is_written(site):
    """No buffer delays the stream."""
    nginx = site.nginx(site.port)
    headers = {"Host": f"{NAME}:{nginx.port}", "Authorization": f"Bearer {site.key}"}
    with requests.get(
        f"{nginx.url}/api/v1/events/stream", headers=headers, stream=True, verify=str(nginx.certificate), timeout=20
    ) as stream:
        assert stream.status_code == 200
        made = site.ask(nginx, "POST", "/api/v1/workloads", {"id": "streamed", "name": "s", "image": "x:1"})
        assert made.status_code == 201
        assert next(line for line in stream.iter_lines() if b"streamed" in line)


def test_a_body_as_large_as_the_api_takes_passes_and_a_larger_one_is_refused_by_the_api(site):
    """The proxy's own limit is above, so that the answer is a problem document."""
    nginx = site.nginx(site.port)
    for size, status in ((1024 * 1024 - 100, 422), (1024 * 1024 + 1, 413)):
        answer = site.ask(nginx, "POST", "/api/v1/workloads", {"id": "x" * size})
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
