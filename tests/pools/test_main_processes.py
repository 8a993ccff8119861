"""The main process of a container under the guest agent, beside ``docker run --init``: the same codes, logs and ends.

The images are from scratch, without a shell: each has one program, ``main_process.c``.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pools import guest
from pools.lifecycle import own_command
from pools.runtime.base import ContainerPlan, Image
from pools.runtime.docker import DockerRuntime
from pools.spec import Owner
from tests.make import make_spec
from tests.registry import forget
from tests.runtimes import choose_runtime
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]
SOURCE = Path(__file__).with_name("main_process.c")
UID = 31235
STOP_S = 2


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=check)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Tags of an image by its stop signal."""
    context, tags = tmp_path_factory.mktemp("main"), dict[str, str]()
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", context / "main", SOURCE], check=True)
    (context / "main").chmod(0o755)
    lines = ["FROM scratch", "COPY main /main", 'ENTRYPOINT ["/main"]', 'CMD ["waits"]', "WORKDIR /somewhere"]
    for stop in ("", "SIGUSR1", "SIGINT"):
        (context / "Dockerfile").write_text("\n".join([*lines, *([f"STOPSIGNAL {stop}"] if stop else [])]))
        tags[stop] = f"boilerhouse-test/main-{stop.lower() or 'plain'}:{uuid.uuid4().hex[:8]}"
        docker("build", "-q", "-t", tags[stop], str(context))
    yield tags
    for tag in tags.values():
        forget(tag)


@dataclass(frozen=True)
class Result:
    exit_code: int
    out: str
    errors: str


class Sides:
    """The same image twice: as we create a container, and by ``docker run --init``."""

    def __init__(self, runtime: DockerRuntime) -> None:
        self.runtime, self.names = runtime, list[str]()

    def start(self, tag: str, *command: str, uid: int = UID) -> tuple[str, str]:
        """The names of both: ours, then the plain one."""
        ours, plain = self._ours(self.runtime.find_image(tag), command, uid), f"bh-main-{uuid.uuid4().hex[:8]}"
        self.names.append(plain)
        docker("run", "-d", "--init", "--name", plain, "--network", "none", "--read-only", "--user", f"{uid}:{uid}",
               "--security-opt", "no-new-privileges", tag, *command)  # fmt: skip
        return ours, plain

    def _ours(self, image: Image, command: tuple[str, ...], uid: int) -> str:
        key, program = uuid.uuid4(), guest.installed()
        guest.prepare(key, Owner(uid, uid))
        words = own_command(replace(make_spec(), command=command), image)
        plan = ContainerPlan(
            name=f"bh-main-{key.hex[:8]}", image=image.id, command=(), environment={}, labels={}, uid=uid,
            mounts=guest.binds(key, program), network="none", address=None, dns=(), ports=(), exposed=(),
            read_only_root=True, cpus=1.0, memory_mb=64, pids_limit=64, shm_mb=8, tmpfs=(), placeholder="/",
            runtime=None, probe=None, stop_timeout_ms=0, entrypoint=guest.command_line(words), init=False,
        )  # fmt: skip
        self.names.append(plan.name)
        self.runtime.create(plan)
        self.runtime.start(plan.name)
        return plan.name

    def result(self, name: str) -> Result:
        code = int(docker("wait", name).stdout)
        logs = docker("logs", name)
        return Result(code, logs.stdout, logs.stderr)

    def wait_until_ready(self, *names: str) -> None:
        for name in names:
            eventually(lambda name=name: "ready" in docker("logs", name).stdout)


@pytest.fixture
def sides(docker_engine, data_dir, settings) -> Iterator[Sides]:
    made = Sides(choose_runtime(settings, DockerRuntime, settings.DOCKER_HOST))
    yield made
    docker("rm", "-f", *made.names, check=False)


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


ENDS = [
    long("ends 0", 0), ("ends 3", 3), long("ends 255", 255), ("dies 11", 139), long("dies 9", 137), long("dies 15", 143),
    ("forks", 5), long("daemonises", 0), ("orphans", 0), ("shows", 0),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code"), ENDS)
def test_it_ends_as_it_would_alone(sides, images, words, code):
    ours, plain = map(sides.result, sides.start(images[""], *words.split()))
    assert ours == plain
    assert (ours.exit_code, "late" in ours.out) == (code, False)


def test_root_is_root(sides, images):
    ours, plain = map(sides.result, sides.start(images[""], "shows", uid=0))
    assert ours == plain
    assert ours.out.startswith("0 0 ")


STOPS = [
    long("", "waits", 143), long("", "traps", 45), long("", "ignores", 137), ("SIGUSR1", "traps", 40),
    long("SIGINT", "traps", 32), long("SIGINT", "ignores", 130),
]  # fmt: skip


@pytest.mark.parametrize(("signal", "word", "code"), STOPS)
def test_it_is_stopped_as_it_would_be_alone(sides, images, signal, word, code):
    names = ours, plain = sides.start(images[signal], word)
    sides.wait_until_ready(*names)
    sides.runtime.stop(ours, STOP_S * 1000)
    docker("stop", "-t", str(STOP_S), plain)
    assert sides.result(ours) == sides.result(plain)
    assert sides.result(ours).exit_code == code


NOT_PASSED_ON = {4, 5, 6, 7, 8, 9, 11, 17, 19, 21, 22, 31}
"""Those of faults and of jobs, by either init, and those that no process can catch."""


@pytest.mark.long
@pytest.mark.parametrize("number", sorted(set(range(1, 32)) - NOT_PASSED_ON))
def test_every_signal_comes_through(sides, images, number):
    names = sides.start(images[""], "traps")
    sides.wait_until_ready(*names)
    for name in names:
        docker("kill", "--signal", str(number), name)
    ours, plain = map(sides.result, names)
    assert ours == plain
