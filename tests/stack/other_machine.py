"""A second machine, as far as one kernel allows: a network of its own, and a Docker engine in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.waiting import eventually

HERE, THERE = "10.99.9.1", "10.99.9.2"
"""The addresses of this machine and of that one on the cable between them."""


class Engine:
    """Its files are in ``directory``. Nothing of it is left after ``stop``."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, f"bh-two-{os.getpid()}"
        self.url, self.address = f"unix://{directory}/docker.sock", THERE
        self.inside = ("nsenter", f"--net=/var/run/netns/{self.name}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The engine answers, and has the image of the example workload."""
        here, there = f"bhv{os.getpid()}a", f"bhv{os.getpid()}b"
        self._run(f"ip netns add {self.name}")
        self._run(f"ip link add {here} type veth peer name {there} netns {self.name}")
        for command in (f"ip addr add {HERE}/30 dev {here}", f"ip link set {here} up"):
            self._run(command)
        for command in (f"ip addr add {THERE}/30 dev {there}", f"ip link set {there} up", "ip link set lo up"):
            self._run(command, *self.inside)
        paths = {"data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
        flags = [f"--{flag}={self.directory / name}" for flag, name in paths.items()]
        with (self.directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, "dockerd", *flags, f"--host={self.url}", "--bridge=none"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        eventually(lambda: not self.docker("version").returncode, 90)
        image = subprocess.run(["docker", "save", "boilerhouse/example-workload:1"], capture_output=True, check=True)
        assert not self.docker("load", input=image.stdout).returncode

    def docker(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "-H", self.url, *arguments]
        return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self._run(f"ip netns delete {self.name}")
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([one for one in mounted if Path(one).is_relative_to(self.directory)]):
            subprocess.run(["umount", "--lazy", mount], check=True)

    @staticmethod
    def _run(command: str, *inside: str) -> None:
        subprocess.run([*inside, *command.split()], check=True, timeout=30)
