"""Deployments of one test, next to the shared one: to kill, wipe and restore."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from boilerhouse.operations.supervisor import free_port
from tests.stack.conftest import ROOT, Stack, eventually, is_ready


class Machine:
    """A data directory and a database; ``up`` runs on it or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "up.log"
        self.up: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        self.environment = {**os.environ, "BOILERHOUSE_DATA_DIR": str(self.data)}
        self.new_database()

    def new_database(self) -> None:
        """An empty one; the old one is lost."""
        given = os.environ.get("DATABASE_URL")
        if given is None:
            for path in self.data.glob("boilerhouse.sqlite3*"):
                path.unlink()
            return
        name = f"machine_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(given, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self.environment["DATABASE_URL"] = f"{given.rpartition('/')[0]}/{name}"

    def manage(self, *arguments: str, code: int = 0) -> str:
        """Run a command and return its output. Its exit code must be ``code``."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr[-3000:]
        return done.stdout if code == 0 else done.stderr

    def manage_json(self, *arguments: str) -> Any:
        return json.loads(self.manage(*arguments, "--output", "json"))

    def start(self, key: str = "") -> Stack:
        port = free_port()
        with self.log.open("ab") as output:
            self.up = up = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port)],
                cwd=ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        base = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert up.poll() is None, self.log.read_text()[-4000:]
            return is_ready(base)

        eventually(ready, 90, 0.3)
        key = key or self.manage("create_api_key", "--name", "machine", "--role", "admin").strip()
        return Stack(base, key, up, self.log)

    def kill(self) -> None:
        """All its processes at once, as when the power goes; containers go on."""
        if self.up and self.up.poll() is None:
            self.up.send_signal(signal.SIGKILL)
            self.up.wait(timeout=10)

    def lose(self) -> None:
        """The machine is gone with all that lay on it."""
        self.kill()
        if (self.data / "deployment-id").exists():
            self.manage("purge", "--yes")
        shutil.rmtree(self.data, ignore_errors=True)


@pytest.fixture
def machine(stack: Stack, tmp_path: Path) -> Iterator[Machine]:
    """One of a test's own; ``stack`` has seen to the image."""
    made = Machine(tmp_path / "machine")
    yield made
    made.lose()
