"""Two of each process behind nginx on PostgreSQL, restarted in turn under load; reports what the clients saw.

Run by ``make availability`` (``scripts/engine.sh scripts/postgresql.sh python -m tests.availability``): it stops its own
engine and its own PostgreSQL, too. Ends with 1 when state was lost, a container was held twice, or a request failed by
anything but a documented 503. The report goes to ``bench/results/availability.{json,md}``.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
import requests

os.environ["DJANGO_SETTINGS_MODULE"] = "boilerhouse.settings"
os.environ["BOILERHOUSE_DATA_DIR"] = tempfile.mkdtemp(prefix="bh-availability-")
django.setup()

from tests.engine.conftest import Engine  # noqa: E402
from tests.nginx import Nginx  # noqa: E402
from tests.s3 import S3Server  # noqa: E402
from tests.stack.conftest import ROOT  # noqa: E402
from tests.waiting import eventually  # noqa: E402

RESULTS = ROOT / "bench" / "results"
TENANTS, WARM, MAX = 6, 6, 14
REST_S = 4.0
"""Between one recovery and the next restart."""
DOCUMENTED = {
    "outcome_unknown", "engine_unavailable", "pool_exhausted", "pool_error", "database_unavailable", "unavailable",
    "too_many_waiting",
}  # fmt: skip


@dataclass
class Seen:
    """What clients saw."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    claim_ms: list[float] = field(default_factory=list)
    turns: int = 0
    lost: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Site:
    """Everything of one deployment, on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.environment = {
            **os.environ, "BOILERHOUSE_DATA_DIR": str(self.data), "BOILERHOUSE_THROTTLE_RATE": "0",
            "BOILERHOUSE_ALLOWED_HOSTS": "boilerhouse.example.com", "BOILERHOUSE_LOG_FORMAT": "json",
            "BOILERHOUSE_HTTPS": "true", "BOILERHOUSE_ALLOWED_SINK_HOSTS": "127.0.0.0/8",
        }  # fmt: skip
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2)]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.log = (directory / "processes.log").open("ab")

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def start(self, name: str) -> None:
        kind, _, number = name.partition(" ")
        arguments, handed = [f"run_{kind}", "--skip-checks"], ()
        if kind == "web":
            handed = (self.sockets[int(number) - 1].fileno(),)
            arguments += ["--fd", str(handed[0])]
        self.running[name] = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            pass_fds=handed, start_new_session=True,
        )  # fmt: skip

    def restart(self, name: str) -> float:
        """Stop it as systemd does; return how long that took."""
        began = time.monotonic()
        self.running[name].send_signal(signal.SIGTERM)
        self.running[name].wait(timeout=25)
        took = time.monotonic() - began
        self.start(name)
        return took

    def start_nginx(self) -> tuple[str, Path]:
        """nginx with the example of ``deploy/``; returns its URL and its certificate."""
        one, other = (opened.getsockname()[1] for opened in self.sockets)
        (self.directory / "nginx").mkdir()
        nginx = Nginx(self.directory / "nginx", (one, other))
        self.running["nginx"] = nginx.process
        return nginx.url, nginx.certificate

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


class Client:
    """One tenant's program: it retries where the API says so, and checks the state that it finds."""

    def __init__(self, base: str, certificate: Path, key: str, seen: Seen) -> None:
        self.base, self.key, self.seen = base, key, seen
        self.session = requests.Session()
        self.verify = str(certificate)  # given with each request: the environment's own bundle would win
        self.session.headers.update({"Authorization": f"Bearer {key}", "Host": "boilerhouse.example.com"})

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and body; 0 when there was no answer."""
        what = f"{method} {path.split('/')[-1].split('?')[0]}"
        try:
            answer = self.session.request(
                method, f"{self.base}/api/v1/{path}", json=body, timeout=90, verify=self.verify
            )
        except requests.RequestException as error:
            with self.seen.lock:
                self.seen.failures.append(f"{what}: no answer ({type(error).__name__})")
            return 0, None
        found = answer.json() if answer.content else None
        code = found.get("code", "") if isinstance(found, dict) else ""
        with self.seen.lock:
            self.seen.answers[str(answer.status_code)] += 1
            if answer.status_code == 503 and code in DOCUMENTED and "Retry-After" in answer.headers:
                self.seen.refused[f"{what}: 503 {code}"] += 1
            elif answer.status_code == 409:
                self.seen.refused[f"{what}: 409 {code}"] += 1
            elif answer.status_code >= 400 and answer.status_code != 404:
                self.seen.failures.append(f"{what}: {answer.status_code} {code} {str(found)[:200]}")
        return answer.status_code, found


def live(name: str, client: Client, pool: str, stop: threading.Event, held: dict[str, str]) -> None:
    """Claim, check and raise a counter, at times save it, release; whatever is refused is asked again."""
    number, seen = 0, client.seen
    while not stop.is_set():
        began = time.monotonic()
        status, claimed = client.ask("POST", f"tenants/{name}/claim?timeoutMs=30000", {"poolId": pool})
        if status not in (200, 201):
            time.sleep(0.5)
            continue
        container = claimed["containerId"]
        with seen.lock:
            seen.claim_ms.append((time.monotonic() - began) * 1000)
            if held.get(container, name) != name:
                seen.doubles.append(f"{container} held by {held[container]} and {name}")
            held[container] = name
        script = f"cat /state/n 2>/dev/null || echo 0; echo {number + 1} > /state/n"
        status, done = client.ask("POST", f"containers/{container}/exec", {"command": ["sh", "-c", script]})
        if status == 200 and done["exitCode"] == 0:
            found = int(done["stdout"])
            if found not in (number, number + 1):  # + 1: the answer of the last one was lost, its work was not
                with seen.lock:
                    seen.lost.append(f"{name} found {found}, had written {number}")
            number += 1
            with seen.lock:
                seen.turns += 1
        if random.random() < 0.3:
            client.ask("POST", f"tenants/{name}/sync", {"direction": "outward"})
        time.sleep(random.uniform(0, 0.5))
        while not stop.is_set():
            with seen.lock:
                held.pop(container, None)
            status, _ = client.ask("POST", f"tenants/{name}/release?timeoutMs=30000", {})
            if status in (200, 404):
                break
            time.sleep(0.5)


def recovered(probe: Client, pool: str) -> bool:
    """Whether a tenant that was never here gets a container, uses it, and gives it back."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    status, claimed = probe.ask("POST", f"tenants/{name}/claim?timeoutMs=5000", {"poolId": pool})
    if status not in (200, 201):
        return False
    status, _ = probe.ask("POST", f"containers/{claimed['containerId']}/exec", {"command": ["true"]})
    return status == 200 and probe.ask("POST", f"tenants/{name}/release", {"discard": True})[0] in (200, 202)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.availability")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    directory = Path(os.environ["BOILERHOUSE_DATA_DIR"])
    engine = Engine(Path(os.environ["BOILERHOUSE_ENGINE_DIR"]))
    engine.start()
    s3 = S3Server(directory / "s3")
    s3.start()
    site = Site(directory)
    names = [f"{kind} {number}" for kind in ("web", "worker", "controller") for number in (1, 2)]
    try:
        site.manage("migrate", "-v", "0")
        site.manage("build_example")
        key = site.manage("create_api_key", "--name", "availability", "--role", "admin")
        for name in names:
            site.start(name)
        base, certificate = site.start_nginx()
        setup = Client(base, certificate, key, Seen())
        ready: list[Any] = []
        try:
            eventually(lambda: ready.append(setup.ask("GET", "health/ready")) or ready[-1][0] == 200, 60, 0.5)
        except AssertionError:
            raise SystemExit(f"not ready: {ready[-1]}; {setup.seen.failures[-1:]}; logs in {directory}") from None
        pool = furnish(setup, s3)
        seen, calm = Seen(), Seen()
        report = run(site, engine, base, certificate, key, pool, options.minutes, names, seen, calm)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "availability.json").write_text(json.dumps(report, indent=2) + "\n")
        text = as_markdown(report)
        (RESULTS / "availability.md").write_text(text)
        print(text)
        if report["lostState"] or report["doubleClaims"] or report["failures"]:
            print(f"failed; logs in {directory}", file=sys.stderr)
            raise SystemExit(1)
    finally:
        site.stop()
        subprocess.run("docker ps -aq | xargs -r docker rm -f", shell=True, capture_output=True, check=False)
        s3.stop()
        if engine.process and engine.process.poll() is None:
            engine.kill(signal.SIGTERM)


def furnish(client: Client, s3: S3Server) -> str:
    workload = {
        "id": "load", "name": "load", "image": "boilerhouse/example-workload:1", "pullPolicy": "never",
        "volumes": {"state": {"containerPath": "/state"}}, "stopTimeoutMs": 0,
        "resources": {"memoryMb": 32, "tmpfsMb": 8, "pidsLimit": 32},
    }  # fmt: skip
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    spec = {
        "id": "load", "poolId": "load", "mappings": [mapping], "sink": s3.json("load/${tenantId}/"),
        "policy": {"onClaim": True, "onRelease": True, "intervalMs": 15_000},
    }  # fmt: skip
    pool = {"id": "load", "workloadId": "load", "minSize": WARM, "maxSize": MAX, "minIdle": WARM}
    for path, body in (("workloads", workload), ("pools", pool), ("sync-specs", spec)):
        status, answer = client.ask("POST", path, body)
        assert status == 201, answer
    eventually(lambda: client.ask("GET", "pools/load")[1]["status"]["idle"] >= WARM, 120, 0.5)
    return "load"


def run(
    site: Site, engine: Engine, base: str, certificate: Path, key: str, pool: str, minutes: float, names: list[str],
    seen: Seen, calm: Seen,
) -> dict[str, Any]:  # fmt: skip
    stop, held = threading.Event(), dict[str, str]()
    clients = [
        threading.Thread(
            target=live, args=(f"tenant-{n}", Client(base, certificate, key, seen), pool, stop, held), daemon=True
        )
        for n in range(TENANTS)
    ]
    for thread in clients:
        thread.start()
    probe = Client(base, certificate, key, calm)
    restarts: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    restart_database = os.environ["BOILERHOUSE_TEST_RESTART_DATABASE"]

    def postgresql() -> None:
        subprocess.run([restart_database], check=True, capture_output=True)

    def dockerd() -> None:
        engine.kill(signal.SIGTERM)
        engine.start()

    others: list[tuple[str, Callable[[], object]]] = [("postgresql", postgresql), ("dockerd", dockerd)]
    began = time.monotonic()
    while time.monotonic() - began < minutes * 60:
        for name, act in [*((name, lambda name=name: site.restart(name)) for name in names), *others]:
            if time.monotonic() - began > minutes * 60:
                break
            at = time.monotonic()
            act()
            acted = time.monotonic()
            eventually(lambda: recovered(probe, pool), 60, 0.3)
            took = {"restart": acted - at, "recovered": time.monotonic() - at}
            restarts[name].append({name: round(value, 2) for name, value in took.items()})
            print(f"{name}: {took['restart']:.1f} s to restart, recovered after {took['recovered']:.1f} s", flush=True)
            time.sleep(REST_S)
    stop.set()
    for thread in clients:
        thread.join(120)
    eventually(lambda: not live_rows(probe), 60, 0.5)
    ordered = sorted(seen.claim_ms)
    return {
        "minutes": minutes,
        "tenants": TENANTS,
        "requests": sum(seen.answers.values()),
        "answers": dict(sorted(seen.answers.items())),
        "turns": seen.turns,
        "claimMs": {"p50": round(statistics.median(ordered)), "p99": round(ordered[int(len(ordered) * 0.99)])},
        "askedAgain": dict(seen.refused.most_common()),
        "failures": seen.failures,
        "lostState": seen.lost,
        "doubleClaims": seen.doubles,
        "restarts": dict(restarts),
        "probeRefused": dict(calm.refused.most_common()),
    }


def live_rows(client: Client) -> int:
    """How many tenants still hold something; those whose last release was not waited for give it back now."""
    status, found = client.ask("GET", "tenants?limit=200")
    if status != 200:
        return 1
    for tenant in found["items"]:
        client.ask("POST", f"tenants/{tenant['tenantId']}/release?timeoutMs=20000", {})
    return len(found["items"])


def as_markdown(report: dict[str, Any]) -> str:
    rows = [
        "# Restarted under load",
        "",
        f"Two web processes, two workers and two controllers behind nginx, on PostgreSQL and an engine with live-restore;"
        f" {report['tenants']} tenants claim, work, save and release for {report['minutes']:g} minutes while every"
        " process is restarted, one after another (`make availability`).",
        "",
        "| | |",
        "| --- | --- |",
        f"| requests | {report['requests']} |",
        f"| turns (claim, write, release) | {report['turns']} |",
        f"| state lost | {len(report['lostState'])} |",
        f"| containers held twice | {len(report['doubleClaims'])} |",
        f"| failed requests | {len(report['failures'])} |",
        f"| claim, from the request to its answer | p50 {report['claimMs']['p50']} ms, p99 {report['claimMs']['p99']} ms |",
        "",
        "Told to ask again, and did:",
        "",
        "| what | times |",
        "| --- | --- |",
        *(f"| {what} | {count} |" for what, count in report["askedAgain"].items()),
        "",
        "| restarted | times | it took (median) | a new tenant was served after (median, longest) |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in report["restarts"].items():
        restart = statistics.median(one["restart"] for one in found)
        back = [one["recovered"] for one in found]
        rows.append(f"| {name} | {len(found)} | {restart:.1f} s | {statistics.median(back):.1f} s, {max(back):.1f} s |")
    if report["failures"]:
        rows += ["", "Failures:", "", *(f"- {what}" for what in report["failures"][:20])]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
