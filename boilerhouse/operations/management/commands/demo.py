"""Demonstrate Boilerhouse: the main use case on example data, in a separate deployment that leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from boilerhouse_client import ApiError, Client, Unreachable
from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.operations.demo import Demo, DemoFailed
from boilerhouse.operations.supervisor import EmbeddedS3, free_port
from boilerhouse.process import commands, pids
from pools import images
from pools.errors import ImageMissing
from pools.runtime import get_runtime

START_S = 60
NOT_OURS = (
    "DATABASE_URL", "BOILERHOUSE_RAM_DIR", "BOILERHOUSE_SUBNET", "BOILERHOUSE_ENCRYPTION_KEYS",
    "BOILERHOUSE_HTTPS", "BOILERHOUSE_ALLOWED_HOSTS", "BOILERHOUSE_TRUSTED_ORIGINS", "BOILERHOUSE_BASE_PATH",
)  # fmt: skip
"""Settings of another deployment, which may be in this environment."""
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Command(commands.Command):
    help = (
        "Claim, use and release containers with example data, show timings, then keep the dashboard open until Ctrl-C."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="clean up and exit instead of keeping the dashboard open"
        )
        parser.add_argument("--port", type=commands.PORT, help="the dashboard's port (default: 8000, or a free one)")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        directory = settings.BASE_DIR / ".boilerhouse" / f"demo-{secrets.token_hex(3)}"
        directory.mkdir(parents=True, mode=0o700)
        port, s3_port = options["port"] or _port(), free_port()
        environment = {k: v for k, v in os.environ.items() if k not in NOT_OURS and not k.startswith("Q_CLUSTER")}
        for name in PROXIES:  # this process only connects to this machine
            os.environ.pop(name, None)
        environment |= {"BOILERHOUSE_DATA_DIR": str(directory), "BOILERHOUSE_LOG_FORMAT": "json"}
        self.environment = environment
        up: subprocess.Popen[bytes] | None = None
        with pids.stopping() as stop:
            try:
                self._image()
                with (directory / "up.log").open("wb") as log:
                    ports = ["--port", str(port), "--s3-port", str(s3_port)]
                    up = subprocess.Popen(
                        [sys.executable, str(commands.MANAGE), "up", "--skip-checks", "--s3", *ports],
                        env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True, preexec_fn=pids.die_with_parent,
                    )  # fmt: skip
                base = f"http://127.0.0.1:{port}"
                self._wait_for("database", base, up)
                with ThreadPoolExecutor(2) as both:  # the workers start in the meantime
                    key_found = both.submit(self._manage, "create_api_key", "--name", "demo", "--role", "admin")
                    link_found = both.submit(self._manage, "login_link", "--create", "--output", "json")
                    key, link = key_found.result(), json.loads(link_found.result())["path"]
                self._wait_for(None, base, up)
                self.say(f"Started after {time.monotonic() - began:.1f} s")
                access = (directory / "keys" / "s3-access-key").read_text().strip()
                secret = (directory / "keys" / "s3-secret-key").read_text().strip()
                s3 = EmbeddedS3(f"http://127.0.0.1:{s3_port}", access, secret)
                demo = Demo(Client(base, key, timeout_s=120), s3, self.say)
                demo.run()
                if not options["once"]:
                    self._show(options, demo, base, key, link)
                    stop.wait()
            except (DemoFailed, ApiError, Unreachable, BoilerhouseError, requests.RequestException, OSError) as error:
                detail = getattr(error, "detail", str(error))
                if up is not None:
                    self.say(_tail(directory / "up.log"))
                if options["output"] == "json":
                    self.stdout.write(json.dumps({"ok": False, "error": detail}))
                raise CommandError(f"The demo failed: {detail}", returncode=commands.FAILED) from error
            finally:
                self._clean(up, directory)
            if options["once"]:
                demo.timings["totalMs"] = round((time.monotonic() - began) * 1000, 1)
                self.result(options, {"ok": True, "timings": demo.timings, "sizes": demo.sizes}, _table(demo))

    def _image(self) -> None:
        try:
            get_runtime().find_image(images.EXAMPLE_IMAGE)
        except ImageMissing:
            self.say("Building the example image …")
            for _ in images.build_example():
                pass

    def _wait_for(self, check: str | None, base: str, up: subprocess.Popen[bytes]) -> None:
        """Wait until one readiness check is ok, or all."""
        deadline = time.monotonic() + START_S
        checks: Any = "no answer yet"
        while time.monotonic() < deadline:
            if up.poll() is not None:
                raise DemoFailed(f"The processes ended with code {up.returncode}.")
            try:
                answer = requests.get(f"{base}/api/v1/health/ready", timeout=5)
                checks = answer.json().get("checks")
                if answer.status_code == 200 or (check and checks.get(check) == "ok"):
                    return
            except (requests.RequestException, ValueError):
                pass
            time.sleep(0.25)
        raise DemoFailed(f"Not ready after {START_S} s: {checks}")

    def _manage(self, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, str(commands.MANAGE), *arguments, "--skip-checks"],
            env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise DemoFailed(f"{arguments[0]} failed: {result.stderr[-500:]}")
        return result.stdout.strip()

    def _show(self, options: dict[str, Any], demo: Demo, base: str, key: str, link: str) -> None:
        body = {
            "ok": True,
            "timings": demo.timings,
            "sizes": demo.sizes,
            "url": base,
            "login": base + link,
            "key": key,
        }
        curl = (
            f"curl -s -X POST {base}/api/v1/tenants/carol/claim -H 'Authorization: Bearer {key}'"
            f" -H 'Content-Type: application/json' -d '{{\"poolId\": \"notes\"}}'"
        )
        self.result(options, body, _table(demo))
        self.say(f"\nDashboard  {base}/\nLog in     {base}{link}   (works once)\nAPI key    {key}\nTry        {curl}\n")
        self.say("Press Ctrl-C to stop everything. Nothing is left behind.")

    def _clean(self, up: subprocess.Popen[bytes] | None, directory: Path) -> None:
        if up is not None:
            self.say("Cleaning up …")
            if up.poll() is None:
                up.send_signal(signal.SIGTERM)
                try:
                    up.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    up.kill()
                    up.wait()
            self._manage("purge", "--yes")
        shutil.rmtree(directory, ignore_errors=True)


def _port() -> int:
    import socket

    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            return free_port()
    return 8000


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-40:]) if path.exists() else ""


def _table(demo: Demo) -> str:
    words = {
        "poolWarmMs": "pool of 3 warm", "claimMs": "claim, first time", "claimWithRestoreMs": "claim with restore",
        "restoreMs": "  of which restore", "releaseMs": "release", "saveMs": "  of which save",
        "releaseUnchangedMs": "release, nothing changed", "releaseEmptyMs": "release, nothing written",
    }  # fmt: skip
    lines = [f"{label:<28}{demo.timings[name]:>10.0f} ms" for name, label in words.items() if name in demo.timings]
    lines.append(f"{'state':<28}{demo.sizes['files']:>10} files, {demo.sizes['bytes'] / 1e6:.1f} MB")
    return "\n".join(lines)
