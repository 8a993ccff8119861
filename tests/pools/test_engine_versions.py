"""The API version is negotiated with each engine, on a real engine behind a socket that answers as other versions
do."""

from __future__ import annotations

import io
import tarfile
import threading
import uuid

import pytest

from boilerhouse.controller import engine_watch
from boilerhouse.operations import doctor
from pools import dry_runs, errors, images, lifecycle, reconcile, sizing, suitability
from pools.models import Container, Pool
from pools.runtime.base import ContainerPlan
from pools.runtime.docker import DockerRuntime, dialect
from pools.states import ContainerState, Trouble
from tests.engine_filter import EngineFilter
from tests.make import make_pool, make_spec
from tests.runtimes import choose_runtime

pytestmark = [pytest.mark.any_database, pytest.mark.slow]


@pytest.fixture
def engine(tmp_path):
    """Answers as Docker 29 does, until the test changes that."""
    served = EngineFilter(tmp_path / "engine.sock", "1.44", "1.52", "29.0.0")
    served.start()
    yield served
    served.stop()


@pytest.fixture
def runtime(engine, data_dir):
    return DockerRuntime(engine.url)


@pytest.fixture
def image(runtime):
    try:
        return runtime.find_image(images.EXAMPLE_IMAGE)
    except errors.ImageMissing:
        for _ in runtime.build(images.pack(images.EXAMPLE_CONTEXT, {"busybox": images.BUSYBOX}), images.EXAMPLE_IMAGE):
            pass
        return runtime.find_image(images.EXAMPLE_IMAGE)


def plan(image: str, labels: dict[str, str], placeholder: str) -> ContainerPlan:
    return ContainerPlan(
        name=f"bh-test-{uuid.uuid4().hex[:12]}", image=image, command=("sleep", "60"), environment={}, labels=labels,
        uid=65534, mounts=(), network="none", address=None, dns=(), ports=(), exposed=(), read_only_root=True, cpus=1,
        memory_mb=32, pids_limit=32, shm_mb=1, tmpfs=(), placeholder=placeholder, runtime=None, probe=None,
        stop_timeout_ms=0,
    )  # fmt: skip


def test_an_engine_that_left_our_oldest_behind_takes_every_call(engine, runtime, image, tmp_path):
    """Docker 29 refuses calls below API 1.44."""
    labels = {"boilerhouse.test": uuid.uuid4().hex}
    made = runtime.create(plan(image.id, labels, str(tmp_path)))
    try:
        following = runtime.events(labels)
        runtime.start(made.name)
        done = runtime.exec(made.name, ("sh", "-c", "cat; echo said >&2"), 10_000, stdin=b"fed")
        assert (done.exit_code, done.stdout, done.stderr) == (0, b"fed", b"said\n")
        terminal = runtime.terminal(made.name, ("echo", "seen"), 80, 24)
        assert b"".join(terminal) == b"seen\r\n"
        terminal.close()
        runtime.pause(made.name)
        assert runtime.inspect(made.name).status == "paused"
        runtime.unpause(made.name)
        assert [one.handle.name for one in runtime.list(labels)] == [made.name]
        assert runtime.logs(made.name, tail=5) == b""
        assert runtime.sees(str(tmp_path), {"boilerhouse.test": "probe"})
        assert runtime.capabilities().cpus
        stopped = runtime.stop(made.name, 0)
        assert stopped is not None
        assert not stopped.is_running
        assert next(iter(following)).kind == "die"
        following.close()
    finally:
        assert runtime.remove(made.name) is None
    assert runtime.inspect(made.name) is None
    assert set(engine.asked) == {"", dialect.NEWEST}
    assert not engine.refused


def test_an_engine_exchanged_under_us_is_asked_again(engine, runtime):
    """An upgrade, and the way back, while the process goes on; no call fails, whichever meets the new one first.

    The version in use is refused at once by both: too old for the one, too new for the other.
    """
    for oldest, newest, spoken in [("1.12", "1.41", "1.41"), ("1.44", "1.52", "1.51"), ("1.12", "1.43", "1.43")]:
        engine.oldest, engine.newest = oldest, newest
        before = len(engine.refused)
        assert runtime.inspect("bh-no-such") is None
        assert runtime.list({"boilerhouse.test": "none"}) == []
        assert engine.asked[-1] == spoken
        assert len(engine.refused) - before <= 2, "one call is refused, and at most its quick form before it"


def test_a_newer_engine_that_takes_the_old_version_too_is_spoken_to_in_the_newest(engine, runtime):
    engine.oldest, engine.newest = "1.12", "1.41"
    runtime.list({"boilerhouse.test": "none"})
    assert engine.asked[-1] == "1.41"
    engine.newest = "1.48"
    runtime.list({"boilerhouse.test": "none"})
    runtime.list({"boilerhouse.test": "none"})
    assert engine.asked[-1] == "1.48"
    assert not engine.refused


def test_what_is_sent_along_is_sent_again_to_the_exchanged_engine(engine, runtime):
    """The body of a build has been read when the engine refuses its version."""
    engine.oldest, engine.newest = "1.12", "1.41"
    runtime.ping()
    engine.oldest, engine.newest = "1.44", "1.52"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        text = b"FROM scratch\nCOPY big /\n"
        for name, content in (("Dockerfile", text), ("big", b"x" * 3_000_000)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    tag = f"boilerhouse/test-{uuid.uuid4().hex[:8]}:1"
    try:
        list(runtime.build(context.getvalue(), tag))
        assert runtime.find_image(tag).id.startswith("sha256:")
    finally:
        runtime._api().remove_image(tag, force=True)
    assert "1.41" in engine.refused


def test_an_engine_that_is_too_old_is_refused_in_words(engine, runtime):
    """Versions before Docker 20.10 are not supported."""
    engine.oldest, engine.newest, engine.version = "1.12", "1.40", "19.03.15"
    with pytest.raises(errors.EngineUnsupported) as refused:
        runtime.ping()
    assert refused.value.detail == (
        "The container engine is too old: Docker 19.03.15 has API 1.40, and Boilerhouse needs 1.41 (Docker 20.10) or"
        " newer. Upgrade the engine, or set DOCKER_HOST to another one."
    )
    assert set(engine.asked) == {""}, "nothing but its version was asked"
    engine.newest = "1.41"
    assert runtime.ping()


@pytest.mark.parametrize(
    ("oldest", "newest", "spoken"),
    [
        ("1.12", "1.41", "1.41"),
        ("1.24", "1.45", "1.45"),
        ("1.44", "1.51", "1.51"),
        ("1.44", "1.52", "1.51"),
        ("1.52", "1.60", "1.52"),
        ("1.44", "1.100", "1.51"),
        ("", "1.41", "1.41"),
    ],
)
def test_the_newest_that_both_know_is_agreed(oldest, newest, spoken):
    agreed = dialect.agree({"Version": "x", "ApiVersion": newest, "MinAPIVersion": oldest})
    assert agreed.version == spoken


@pytest.mark.parametrize("said", [{}, {"ApiVersion": "1.9"}, {"ApiVersion": "one"}])
def test_who_names_no_version_of_ours_is_no_engine_for_us(said):
    with pytest.raises(errors.EngineUnsupported):
        dialect.agree(said)


# What is refused, and by whom ----------------------------------------------------------------------


@pytest.fixture
def served(engine, data_dir, settings):
    """This deployment's engine is the one of the test."""
    return choose_runtime(settings, DockerRuntime, engine.url)


def test_pools_say_that_their_engine_is_too_old_and_that_it_is_right_again(engine, served, monkeypatch):
    """The error does not say to start it, and an error from its downtime does not remain."""
    pool = make_pool(min_size=1)
    monkeypatch.setattr(engine_watch, "close_old_connections", lambda: None)  # the test's own
    watch = engine_watch.EngineWatch(lambda: True, threading.Event())
    watch._is_down = True  # it looks at once
    reconcile.engine_is_down("The container engine does not answer. Start it.")
    engine.oldest, engine.newest, engine.version = "1.12", "1.40", "19.03.15"
    watch._due.set()
    watch._reconcile()
    pool.refresh_from_db()
    assert pool.trouble == Trouble.ENGINE_DOWN
    assert pool.last_error.endswith("Upgrade the engine, or set DOCKER_HOST to another one.")
    engine.newest = "1.41"
    watch._due.set()
    watch._reconcile()
    pool.refresh_from_db()
    assert (pool.trouble, pool.last_error) == ("", "")


REFUSED = [
    ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}, "runs rootless", "DOCKER_HOST=unix:"),
    ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, "userns-remap", "daemon.json"),
    ({"MemoryLimit": False, "PidsLimit": False}, "cannot limit memory, processes", "cgroup"),
    ({"FirewallBackend": {"Driver": "nftables"}}, "firewall backend is nftables", '"firewall-backend": "iptables"'),
]


@pytest.mark.parametrize(("info", "why", "todo"), REFUSED)
def test_an_engine_set_up_so_that_containers_cannot_be_ours_is_refused_by_pool_and_doctor(
    engine, served, info, why, todo
):
    """In plain words, with the remedy, before a container is created and in the dry run; and it continues after the
    fix."""
    engine.info = info
    found = list(doctor._engine())
    (said,) = [one for one in found if one[0] == doctor.FAILURE]
    assert why in said[1]
    assert todo in said[2]

    pool = make_pool(min_size=1)
    sizing.refill(pool.pk)
    row = Container.objects.get()
    assert not lifecycle.start_container(row.pk)
    pool = Pool.objects.with_counts().get()
    row.refresh_from_db()
    assert (pool.trouble, pool.status().state) == (Trouble.HOST_NOT_READY, "error")
    assert why in pool.last_error
    assert todo in pool.last_error
    assert row.state == ContainerState.FAILED
    assert row.runtime_id == ""
    tried = dry_runs.run(make_spec(ports=[]))
    assert not tried.is_healthy
    assert why in tried.message
    assert todo in tried.message

    engine.info = {}
    suitability.check(served)
    assert not any(one[0] == doctor.FAILURE for one in doctor._engine())


@pytest.mark.parametrize(
    "info",
    [
        {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"], "CgroupVersion": "2"},
        {"FirewallBackend": {"Driver": "iptables+firewalld"}},
        {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
    ],
)
def test_engines_that_are_set_up_otherwise_are_not_refused(engine, served, info):
    """Cgroup v2 and the containerd image store are supported."""
    engine.info = info
    suitability.check(served)
    (said,) = [one[1] for one in doctor._engine() if one[0] == doctor.OK]
    assert said.startswith("Docker 29.0.0, API 1.51, cgroup v")
    assert ("image store containerd" in said) == ("DriverStatus" in info)
