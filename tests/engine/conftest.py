"""The stack on its own Docker engine, which the tests stop, kill and freeze. Run by ``scripts/engine.sh``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilerhouse.process.processes import pid_started
from tests.stack import conftest as stack_fixtures
from tests.stack.conftest import eventually

django_db_setup, sink_server, pools = (
    stack_fixtures.django_db_setup, stack_fixtures.sink_server, stack_fixtures.pools,
)  # fmt: skip

START_S = 120
"""Beside another part of the tests a start has taken more than a minute."""


class Engine:
    """A dockerd in this network namespace."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.process = directory, None
        self.live_restore = True

    def start(self) -> None:
        """The engine answers. One that ends at once is started again, as systemd does."""
        for _ in range(3):
            process = self.process = self._spawn()
            try:
                eventually(lambda process=process: process.poll() is not None or self.answers(), START_S, 0.2)
            except AssertionError:
                pytest.fail(f"dockerd does not answer after {START_S} s:\n{self}")
            if process.poll() is None:
                return
        pytest.fail(f"dockerd ended three times:\n{self}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        for stale in (self.directory / "docker.pid", self.directory / "exec" / "containerd" / "containerd.pid"):
            if stale.exists():
                # Killed with dockerd, containerd dies a moment later; until then a new dockerd would take it for its own.
                number = int(stale.read_text())
                eventually(lambda number=number: pid_started(number) is None, 30, 0.05)
                stale.unlink()  # dead, or left a zombie by this machine's init
        arguments = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "docker.pid"]
        paths = [str(self.directory / a) if not a.startswith("--") else a for a in arguments]
        with (self.directory / "dockerd.log").open("ab") as log:
            return subprocess.Popen(
                ["dockerd", *paths, "-H", os.environ["DOCKER_HOST"], *(["--live-restore"] if self.live_restore else [])],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def answers(self) -> bool:
        done = subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False)
        return done.returncode == 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)

    def __str__(self) -> str:
        return (self.directory / "dockerd.log").read_text()[-3000:]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    directory = os.environ.get("BOILERHOUSE_ENGINE_DIR")
    assert directory, "run these tests by scripts/engine.sh"
    engine = Engine(Path(directory))
    engine.start()
    yield engine
    if engine.process and engine.process.poll() is None:
        engine.kill(signal.SIGCONT)
        subprocess.run(
            "docker ps -aq | xargs -r docker rm -f", shell=True, capture_output=True, timeout=60, check=False
        )
        engine.kill(signal.SIGTERM)
        time.sleep(0.5)


@pytest.fixture(scope="session")
def stack(engine: Engine, django_db_blocker) -> Iterator[stack_fixtures.Stack]:
    yield from stack_fixtures.stack.__wrapped__(django_db_blocker)
