"""Engines whose configuration is unsafe for containers of tenants are refused with a reason. The engines are real."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilerhouse.operations import doctor
from pools import lifecycle, sizing, suitability
from pools.models import Container, Pool
from pools.runtime.docker import DockerRuntime
from pools.states import ContainerState, Trouble
from tests.make import make_pool
from tests.runtimes import choose_runtime

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

ALONE = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
# A Debian suite's files (scripts/on-engine.sh), or those of this machine.
SUITE = Path(os.environ.get("BOILERHOUSE_ENGINE_ROOT", "/"))


class Dockerd:
    """A Docker engine without a network, in separate namespaces. Its changes to /etc (users, their ranges) end with
    it."""

    def __init__(self, directory: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.directory, self.url = directory, f"unix://{directory}/docker.sock"
        directory.chmod(0o711)  # users that are mapped come through, as dockerd asks for
        shutil.copytree(SUITE / "etc", directory / "etc", symlinks=True)
        (directory / "daemon.json").write_text("{}")
        for name in ("subuid", "subgid"):
            with (directory / "etc" / name).open("a") as ranges:
                ranges.write("root:100000:65536\n")  # for newuidmap, which rootlesskit asks

    def start(self, *flags: str, by: tuple[str, ...] = ()) -> None:
        at = self.directory
        paths = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
        flags = (*flags, *ALONE, *(f"--{flag}={at / name}" for flag, name in paths.items()), f"--host={self.url}")
        seen = 'mount --bind "$0/etc" /etc && mount --bind "$1/usr" /usr && shift && exec "$@"'
        inside = ["unshare", "--net", "--mount", "--propagation=slave", "sh", "-c", seen]
        with (at / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, str(at), str(SUITE), *by, "dockerd", *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "XDG_RUNTIME_DIR": str(at)},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", self.url, "version"], capture_output=True, check=False).returncode:
            said = (at / "dockerd.log").read_text()[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int((self.directory / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)

    def clear(self) -> None:
        """Nothing of it is left."""
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([one for one in mounted if Path(one).is_relative_to(self.directory)]):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.directory)


@pytest.fixture
def dockerd() -> Iterator[Dockerd]:
    made = Dockerd(Path(tempfile.mkdtemp(prefix="bh-engine-")))
    try:
        yield made
    finally:
        made.stop()
        made.clear()


@pytest.fixture
def runtime(dockerd, data_dir, settings):
    """This deployment's engine is that one."""
    return choose_runtime(settings, DockerRuntime, dockerd.url)


# rootlesskit is there in a suite's files; without it a namespace of users is made by hand.
BY_KIT = (SUITE / "usr/bin/rootlesskit").exists()
ROOTLESS = (
    ("rootlesskit", "--net=slirp4netns", "--disable-host-loopback")
    if BY_KIT
    else ("unshare", "--user", "--map-root-user")
)
REFUSED = [
    (("--userns-remap=default",), (), "remaps container users (userns-remap)", "daemon.json"),
    (("--rootless", "--group=0"), ROOTLESS, "runs rootless", "DOCKER_HOST=unix:"),
]


@pytest.mark.parametrize(("flags", "by", "why", "todo"), REFUSED, ids=["userns-remap", "rootless"])
def test_a_real_engine_that_maps_users_is_refused_until_it_does_not(dockerd, runtime, flags, by, why, todo):
    """doctor and pools report the cause and the remedy instead of runc's error, and continue after the fix."""
    dockerd.start(*flags, by=by)
    (said, *_) = [one for one in doctor._engine() if one[0] == doctor.FAILURE]
    assert why in said[1]
    assert todo in said[2]

    pool = make_pool(min_size=1)
    sizing.refill(pool.pk)
    row = Container.objects.get()
    assert not lifecycle.start_container(row.pk)
    row.refresh_from_db()
    pool = Pool.objects.with_counts().get()
    assert (pool.trouble, pool.status().state) == (Trouble.HOST_NOT_READY, "error")
    assert why in pool.last_error
    assert todo in pool.last_error
    assert (row.state, row.runtime_id) == (ContainerState.FAILED, "")
    assert runtime.list({}) == [], "none was made"

    dockerd.stop()
    dockerd.start()
    suitability.check(runtime)
    assert not any(one[0] == doctor.FAILURE for one in doctor._engine())


UNPRIVILEGED = ("setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource", "prlimit", "--nofile=2048:2048")


@pytest.mark.long  # starts an engine of its own
def test_an_engine_that_cannot_give_as_many_open_files_as_containers_get_is_named(dockerd, runtime):
    """Every start failed with runc's error about rlimits, and doctor reported nothing."""
    dockerd.start(by=UNPRIVILEGED)
    said = [one for one in doctor._engine() if one[0] == doctor.WARN and "open" in one[1]]
    assert "its own limit, 2048" in said[0][1]
    assert "LimitNOFILE" in said[0][2]

    dockerd.stop()
    dockerd.start()
    assert not [one for one in doctor._engine() if one[0] == doctor.WARN and "open" in one[1]]
