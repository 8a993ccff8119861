"""The contract of ``ContainerRuntime``: each operation on the real engine and on the fake one."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pools import errors, host_processes, images, references
from pools.pull_errors import LoginFailed, PullFailed, PullFault
from pools.runtime import get_runtime
from pools.runtime.base import ContainerPlan, ContainerRuntime, EngineEvent, Observed, Probe, RegistryLogin
from pools.runtime.docker import DockerRuntime
from tests.fake_runtime import FakeRuntime, Published
from tests.registry import PASSWORD, USER, Registry, bcrypted, forget
from tests.runtimes import choose_runtime
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
LABEL = "boilerhouse-test.contract"
FOREVER = ("sleep", "1000")
MISSING = "bh-contract-nothing"
NO_IMAGE = "boilerhouse-test/nothing:1"
SUBNETS = ["10.253.0.0/24", "10.253.1.0/24", "10.253.2.0/24"]
LOGIN = RegistryLogin(USER, PASSWORD)


@dataclass
class Engine:
    """An engine, and the names of a test's objects, which are removed after it."""

    runtime: ContainerRuntime
    image: str
    mark: str

    @property
    def labels(self) -> dict[str, str]:
        return {LABEL: self.mark}

    def plan(self, name: str = "one", **over: Any) -> ContainerPlan:
        values: dict[str, Any] = {
            "name": f"bh-contract-{self.mark}-{name}", "image": self.image, "command": FOREVER, "environment": {},
            "labels": self.labels, "uid": 31234, "mounts": (), "network": "none", "address": None, "dns": (), "ports": (),
            "exposed": (), "read_only_root": True, "cpus": 0.5, "memory_mb": 64, "pids_limit": 32, "shm_mb": 8, "tmpfs": (),
            "placeholder": "/", "runtime": None, "probe": None, "stop_timeout_ms": 0,
        }  # fmt: skip
        return ContainerPlan(**{**values, **over})

    def start(self, name: str = "one", **over: Any) -> str:
        """The name of a container that was started."""
        plan = self.plan(name, **over)
        self.runtime.create(plan)
        self.runtime.start(plan.name)
        return plan.name

    def finished(self, *command: str) -> str:
        """The name of a container whose command has ended."""
        name = self.start(command=command)
        eventually(lambda: self.seen(name).status == "exited")
        return name

    def seen(self, name: str) -> Observed:
        found = self.runtime.inspect(name)
        assert found, name
        return found


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.slow), "fake"])
def engine(request, data_dir, settings) -> Iterator[Engine]:
    if request.param == "docker":
        images.ensure_example()
        runtime: ContainerRuntime = choose_runtime(settings, DockerRuntime, settings.DOCKER_HOST)
    else:
        runtime = choose_runtime(settings, FakeRuntime)
        runtime.absent.add(NO_IMAGE)
        runtime.files["/etc/hosts"] = b"127.0.0.1 localhost\n"
        runtime.files["/srv/start"] = (images.EXAMPLE_CONTEXT / "rootfs/srv/start").read_bytes()
    assert get_runtime() is runtime, "chosen by its setting"
    found = Engine(runtime, runtime.find_image(images.EXAMPLE_IMAGE).id, uuid.uuid4().hex[:8])
    yield found
    for one in runtime.list(found.labels):
        runtime.remove(one.handle.name)
    for number in (1, 2):
        runtime.remove_network(f"bh-contract-{found.mark}-{number}")


# Images ----------------------------------------------------------------------------------------------


def test_an_image_is_found_by_name_and_by_id(engine):
    found = engine.runtime.find_image(images.EXAMPLE_IMAGE)
    assert found.id.startswith("sha256:")
    assert engine.runtime.find_image(found.id).id == found.id
    assert found.size_bytes > 0
    with pytest.raises(errors.ImageMissing):
        engine.runtime.find_image(NO_IMAGE)


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_what_is_built_is_an_image_and_what_cannot_be_is_a_failure(engine):
    tag = f"boilerhouse-test/built:{engine.mark}"
    if isinstance(engine.runtime, FakeRuntime):
        engine.runtime.absent.add(tag)
    with pytest.raises(errors.ImageMissing):
        engine.runtime.find_image(tag)
    try:
        assert list(engine.runtime.build(packed(Dockerfile=b"FROM scratch\nCOPY a /a\n", a=b"a"), tag))
        assert engine.runtime.find_image(tag)
    finally:
        if not isinstance(engine.runtime, FakeRuntime):
            forget(tag)
    with pytest.raises(errors.EngineFailure):
        list(engine.runtime.build(packed(a=b"a"), tag))


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Callable[[], str]]:
    """A registry that wants a login is started when it is asked for: its host."""
    made: list[Registry] = []

    def start() -> str:
        if not made:
            made.append(Registry(tmp_path_factory.mktemp("registry"), f"{USER}:{bcrypted(PASSWORD)}\n"))
            made[0].start()
            made[0].put("private", login={"username": USER, "password": PASSWORD})
        return made[0].host

    yield start
    for one in made:
        one.close()


@pytest.fixture
def private(engine, registry) -> Iterator[references.Reference]:
    """The name of an image at a registry that requires ``LOGIN``, and not on this machine."""
    host = "registry.example:5000"
    if isinstance(engine.runtime, FakeRuntime):
        engine.runtime.registry[f"{host}/private:1"] = Published("sha256:" + "a" * 64, LOGIN)
        engine.runtime.absent.add(f"{host}/private:1")
    else:
        host = registry()
    yield references.parse(f"{host}/private:1")
    if not isinstance(engine.runtime, FakeRuntime):
        forget(f"{host}/private:1")


def test_a_pull_ends_with_the_image_and_needs_the_registrys_login(engine, private):
    for login in (None, RegistryLogin(USER, "wrong")):
        with pytest.raises(PullFailed) as refused:
            list(engine.runtime.pull(private, login))
        assert refused.value.fault == PullFault.UNAUTHORIZED
    with pytest.raises(errors.ImageMissing):
        engine.runtime.find_image(private.text)
    progress = list(engine.runtime.pull(private, LOGIN))
    assert progress
    assert progress[-1].digest == engine.runtime.named_digest(private, LOGIN)
    assert engine.runtime.find_image(private.text)


def test_what_the_registry_does_not_have_is_not_pulled(engine, private):
    other = references.parse(private.text.replace("private:1", "private:nothing"))
    with pytest.raises(PullFailed) as refused:
        list(engine.runtime.pull(other, LOGIN))
    assert refused.value.fault == PullFault.NOT_FOUND
    with pytest.raises(PullFailed):
        engine.runtime.named_digest(other, LOGIN)


def test_a_pull_that_is_broken_off_is_no_success(engine, private):
    pull = engine.runtime.pull(private, LOGIN)
    pull.close()
    with pytest.raises(errors.EngineUnavailable):
        list(pull)


def test_a_login_is_tried_at_the_registry(engine, private):
    engine.runtime.log_in(private.registry, LOGIN)
    with pytest.raises(LoginFailed) as refused:
        engine.runtime.log_in(private.registry, RegistryLogin(USER, "wrong"))
    assert refused.value.fault == PullFault.UNAUTHORIZED


# Networks --------------------------------------------------------------------------------------------


def test_a_network_has_the_first_free_subnet_and_is_made_once(engine):
    def ensure(number: int, subnets: list[str]) -> Any:
        name, bridge = f"bh-contract-{engine.mark}-{number}", f"bhc{number}{engine.mark}"
        return engine.runtime.ensure_network(name, bridge, iter(subnets), engine.labels)

    first = ensure(1, SUBNETS[:1])
    assert (first.subnet, first.bridge) == (SUBNETS[0], f"bhc1{engine.mark}")
    assert first.gateway in ("10.253.0.1", ""), "Docker 20.10 says it only where it was given"
    assert ensure(1, SUBNETS[1:]) == first
    assert ensure(2, SUBNETS[:2]).subnet == SUBNETS[1], "the first is taken"
    engine.start(network=first.name)
    with pytest.raises(errors.EngineFailure):
        engine.runtime.remove_network(first.name)
    engine.runtime.remove(engine.plan().name)
    for _ in range(2):
        engine.runtime.remove_network(first.name)
    with pytest.raises(errors.HostNotReady):
        ensure(1, SUBNETS[1:2])


# From creation to removal ----------------------------------------------------------------------------


def test_what_is_created_is_there_and_does_not_run(engine):
    plan = engine.plan()
    assert engine.runtime.inspect(plan.name) is None
    handle = engine.runtime.create(plan)
    found = engine.seen(plan.name)
    assert (found.handle, handle.name, found.labels) == (handle, plan.name, found.labels | plan.labels)
    assert (found.is_running, found.status) == (False, "created")
    assert engine.seen(handle.runtime_id) == found


def test_a_name_is_given_once_and_an_image_that_is_missing_makes_nothing(engine):
    engine.runtime.create(engine.plan())
    with pytest.raises(errors.NameTaken):
        engine.runtime.create(engine.plan())
    with pytest.raises(errors.ImageMissing):
        engine.runtime.create(engine.plan("other", image=NO_IMAGE))
    assert len(engine.runtime.list(engine.labels)) == 1


def test_a_container_runs_until_it_is_stopped(engine):
    name = engine.start()
    assert (engine.seen(name).is_running, engine.seen(name).status) == (True, "running")
    engine.runtime.start(name)
    assert engine.runtime.stop(name, 5000).status == "exited"
    assert (engine.seen(name).is_running, engine.seen(name).status) == (False, "exited")
    assert engine.runtime.stop(name, 5000).status == "exited", "it is stopped"
    engine.runtime.start(name)
    assert engine.seen(name).is_running


def test_a_stop_without_time_kills(engine):
    name = engine.start()
    assert engine.runtime.stop(name, 0)
    eventually(lambda: not engine.seen(name).is_running)
    assert engine.seen(name).exit_code == 137


@pytest.mark.parametrize(("command", "exit_code"), [(("true",), 0), (("false",), 1), (("cat", "/nowhere"), 1)])
def test_a_program_that_ends_leaves_its_exit_code(engine, command, exit_code):
    assert engine.seen(engine.finished(*command)).exit_code == exit_code


def test_a_program_that_is_not_there_does_not_start(engine):
    plan = engine.plan(command=("no-such-program",), init=False)
    engine.runtime.create(plan)
    with pytest.raises(errors.BadCommand):
        engine.runtime.start(plan.name)
    assert not engine.seen(plan.name).is_running


def test_what_is_removed_is_gone_running_or_not(engine):
    created = engine.plan("created")
    engine.runtime.create(created)
    for name in (engine.start(), created.name):
        assert engine.runtime.remove(name) is None
        assert engine.runtime.inspect(name) is None
        assert engine.runtime.remove(name) is None, "it is gone"


def test_what_is_not_there_can_be_stopped_and_not_started(engine):
    assert engine.runtime.stop(MISSING, 1000) is None
    assert engine.runtime.stop(MISSING, 0) is None
    assert engine.runtime.remove(MISSING) is None
    assert engine.runtime.unpause(MISSING) is None
    assert engine.runtime.inspect_made(engine.plan()) is None
    for ask in (
        lambda: engine.runtime.start(MISSING),
        lambda: engine.runtime.pause(MISSING),
        lambda: engine.runtime.exec(MISSING, ("true",), 1000),
        lambda: engine.runtime.terminal(MISSING, ("true",), 80, 24),
        lambda: engine.runtime.logs(MISSING, 10),
        lambda: engine.runtime.follow_logs(MISSING, 10),
        lambda: engine.runtime.file(MISSING, "/srv/start", 1000),
    ):
        with pytest.raises(errors.ContainerMissing):
            ask()


def test_the_list_has_all_that_carry_the_labels(engine):
    since = time.time() - 5
    running, stopped = engine.start("running", labels={**engine.labels, "kind": "a"}), engine.plan("stopped")
    engine.runtime.create(stopped)
    listed = {one.handle.name: one for one in engine.runtime.list(engine.labels)}
    assert set(listed) == {running, stopped.name}
    assert (listed[running].is_running, listed[stopped.name].is_running) == (True, False)
    assert all(since < one.created_at < time.time() + 5 for one in listed.values())
    assert [one.handle.name for one in engine.runtime.list({**engine.labels, "kind": "a"})] == [running]
    assert engine.runtime.list({**engine.labels, "kind": "b"}) == []
    assert {running, stopped.name} <= {one.handle.name for one in engine.runtime.list({})}


def test_one_that_is_not_as_planned_is_told(engine):
    plan = engine.plan()
    engine.runtime.create(plan)
    assert engine.runtime.inspect_made(replace(plan, memory_mb=65)).status == "created", "it does not run"
    engine.runtime.start(plan.name)
    assert engine.runtime.inspect_made(plan).is_running
    with pytest.raises(errors.NotAsAsked):
        engine.runtime.inspect_made(replace(plan, memory_mb=65))


def test_a_paused_container_runs_and_does_nothing(engine):
    name = engine.start()
    assert engine.runtime.unpause(name) is None, "it is not paused"
    for _ in range(2):
        engine.runtime.pause(name)
        assert (engine.seen(name).is_running, engine.seen(name).status) == (True, "paused")
    threading.Timer(0.5, engine.runtime.unpause, [name]).start()
    assert engine.runtime.exec(name, ("echo", "on"), 10_000).stdout == b"on\n", "it waits"
    assert engine.seen(name).status == "running"
    engine.runtime.pause(name)
    engine.runtime.remove(name)
    assert engine.runtime.inspect(name) is None


def test_one_that_does_not_run_is_not_paused(engine):
    with pytest.raises(errors.NotRunning):
        engine.runtime.pause(engine.finished("true"))


@pytest.mark.parametrize(("command", "health", "exit_code"), [(("true",), "healthy", 0), (("false",), "unhealthy", 1)])
def test_the_health_check_says_whether_it_is_well(engine, command, health, exit_code):
    name = engine.start(probe=Probe(command, interval_ms=200, timeout_ms=5000, retries=1, start_period_ms=0))
    eventually(lambda: engine.seen(name).health == health)
    assert engine.seen(name).probed.exit_code == exit_code
    [listed] = engine.runtime.list(engine.labels)
    assert listed.health == health


# What happens in it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "stdin", "exit_code", "out", "err"),
    [
        (("echo", "a", "b"), None, 0, b"a b\n", False),
        (("cat",), b"fed\n", 0, b"fed\n", False),
        (("cat",), b"", 0, b"", False),
        (("false",), None, 1, b"", False),
        (("cat", "/nowhere"), None, 1, b"", True),
        (("no-such-program",), None, 127, b"", True),
        (("/srv",), None, 126, b"", True),
        (("/etc/hosts",), None, 126, b"", True),
    ],
)
def test_a_command_is_told_by_its_output_and_exit_code(engine, command, stdin, exit_code, out, err):
    done = engine.runtime.exec(engine.start(), command, 20_000, stdin)
    assert (done.exit_code, done.stdout, bool(done.stderr)) == (exit_code, out, err)
    assert bool(done.refusal) == (exit_code in (126, 127))
    assert not done.truncated


def test_of_each_stream_the_first_bytes_are_kept(engine):
    name = engine.start()
    done = engine.runtime.exec(name, ("seq", "1000"), 20_000, limit_bytes=10)
    assert (done.stdout, done.stdout_truncated, done.stderr_truncated) == (b"1\n2\n3\n4\n5\n", True, False)
    done = engine.runtime.exec(name, ("cat", "/nowhere"), 20_000, limit_bytes=3)
    assert (done.stderr, done.stdout_truncated, done.stderr_truncated) == (b"cat", False, True)
    assert not engine.runtime.exec(name, ("seq", "5"), 20_000, limit_bytes=10).truncated, "just as much as there is"


def test_a_command_past_its_time_is_killed_and_what_it_printed_is_kept(engine):
    name = engine.start()
    with pytest.raises(errors.ExecTimedOut) as late:
        engine.runtime.exec(name, ("yes",), 500, limit_bytes=4)
    assert (late.value.stdout, late.value.stdout_truncated) == (b"y\ny\n", True)
    with pytest.raises(errors.ExecTimedOut):
        engine.runtime.exec(name, FOREVER, 300)
    assert engine.runtime.exec(name, ("true",), 20_000).exit_code == 0, "the container goes on"


def test_output_that_nobody_reads_any_more_holds_up_no_other_command(engine, monkeypatch):
    """The engine sees the closed connection as soon as a command is aborted, also while its error object exists."""
    kill_tree = host_processes.kill_tree

    def killed_late(pid: int, runtime_id: str) -> bool:
        time.sleep(0.5)  # as on a busy machine: what is printed meanwhile fills every buffer
        return kill_tree(pid, runtime_id)

    monkeypatch.setattr(host_processes, "kill_tree", killed_late)
    name = engine.start()
    with pytest.raises(errors.ExecTimedOut) as held:
        engine.runtime.exec(name, ("yes",), 500, limit_bytes=4)
    assert engine.runtime.exec(name, ("true",), 20_000).exit_code == 0
    assert held.value.stdout == b"y\ny\n"


def test_no_command_runs_in_what_does_not(engine):
    name = engine.finished("true")
    for ask in (
        lambda: engine.runtime.exec(name, ("true",), 1000),
        lambda: engine.runtime.terminal(name, ("true",), 80, 24),
    ):
        with pytest.raises(errors.NotRunning):
            ask()


def test_a_terminal_shows_what_a_program_prints_and_how_it_ends(engine):
    terminal = engine.runtime.terminal(engine.start(), ("seq", "2"), 80, 24)
    assert b"".join(terminal) == b"1\r\n2\r\n"
    terminal.resize(100, 30)
    eventually(lambda: terminal.exit_code() is not None)
    assert terminal.exit_code() == 0


def test_what_is_typed_reaches_the_program_until_the_terminal_is_closed(engine):
    terminal = engine.runtime.terminal(engine.start(), ("cat",), 80, 24)
    terminal.write(b"hello\n")
    shown = b""
    for chunk in terminal:
        shown += chunk
        if shown.count(b"hello") == 2:  # the echo, and what cat writes
            assert terminal.exit_code() is None
            terminal.close()
    assert shown.count(b"hello") == 2
    terminal.close()


def test_the_log_has_the_last_lines(engine):
    name = engine.finished("seq", "5")
    logs = engine.runtime.logs
    eventually(lambda: logs(name, 100) == b"1\n2\n3\n4\n5\n")
    assert logs(name, 2) == b"4\n5\n"
    assert logs(name, 100, limit_bytes=4) == b"4\n5\n"
    assert logs(name, 100, errors_only=True) == b""
    assert logs(name, 100, since=time.time() - 60) == b"1\n2\n3\n4\n5\n"
    assert logs(name, 100, since=time.time() + 60) == b""
    assert logs(name, 2, timeout_s=5) == b"4\n5\n"
    moment, _, text = logs(name, 1, timestamps=True).partition(b" ")
    assert (len(moment), moment[-1:], text) == (len("2026-01-02T03:04:05.123456789Z"), b"Z", b"5\n")


def test_the_log_tells_errors_apart(engine):
    name = engine.finished("cat", "/nowhere")
    eventually(lambda: b"/nowhere" in engine.runtime.logs(name, 100, errors_only=True))
    assert engine.runtime.logs(name, 100) == engine.runtime.logs(name, 100, errors_only=True)


def test_a_log_is_followed_until_the_container_ends(engine):
    name = engine.finished("seq", "3")
    assert b"".join(engine.runtime.follow_logs(name, 2)) == b"2\n3\n"


def test_a_followed_log_is_closed_by_another_thread(engine):
    followed = engine.runtime.follow_logs(engine.start(), 10)
    threading.Timer(0.3, followed.close).start()
    assert b"".join(followed) == b""


def test_a_file_is_told_by_its_kind_and_size(engine):
    plan = engine.plan()
    engine.runtime.create(plan)
    content = (images.EXAMPLE_CONTEXT / "rootfs/srv/start").read_bytes()
    found = engine.runtime.file(plan.name, "/srv/start", 1 << 20)
    assert (found.kind, found.size, found.content) == ("file", len(content), content)
    large = engine.runtime.file(plan.name, "/srv/start", len(content) - 1)
    assert (large.kind, large.size, large.content) == ("file", len(content), None)
    assert engine.runtime.file(plan.name, "/srv", 1 << 20).kind == "directory"
    assert engine.runtime.file(plan.name, "/srv/nothing", 1 << 20) is None


def test_what_happens_to_our_containers_is_told(engine):
    heard: list[EngineEvent] = []
    events = engine.runtime.events(engine.labels)

    def listen() -> None:
        for event in events:
            heard.append(event)
            if event.kind == "destroy":
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    other = engine.plan("other", labels={LABEL: f"not-{engine.mark}"}, command=("true",))
    handle = engine.runtime.create(other)
    engine.runtime.start(other.name)
    engine.runtime.remove(other.name)
    name = engine.start(probe=Probe(("true",), interval_ms=200, timeout_ms=5000, retries=1, start_period_ms=0))
    mine = engine.seen(name).handle.runtime_id
    eventually(lambda: any(one.kind == "health" for one in heard))
    engine.runtime.stop(name, 0)
    eventually(lambda: any(one.kind == "die" for one in heard))
    engine.runtime.remove(name)
    thread.join(30)
    assert not thread.is_alive()
    assert handle.runtime_id not in {one.runtime_id for one in heard}
    assert [(one.kind, one.exit_code, one.health) for one in heard] == [
        ("health", None, "healthy"), ("die", 137, ""), ("destroy", None, ""),
    ]  # fmt: skip
    assert all(one.runtime_id == mine and one.labels.items() >= engine.labels.items() for one in heard)


# The engine ------------------------------------------------------------------------------------------


def test_an_engine_says_what_it_is_and_which_directories_it_sees(engine, tmp_path):
    assert engine.runtime.ping()
    assert engine.runtime.capabilities().version == engine.runtime.ping()
    assert not engine.runtime.is_suspect()
    assert engine.runtime.sees(str(tmp_path), engine.labels) is True
    assert engine.runtime.sees(str(tmp_path / "nothing"), engine.labels) is False
    assert engine.runtime.list(engine.labels) == [], "what it was asked with is gone"


def everything(runtime: ContainerRuntime, plan: ContainerPlan) -> dict[str, Callable[[], Any]]:
    """A call of each operation that queries the engine."""
    reference = references.parse("registry.example/x:1")
    return {
        "ping": runtime.ping,
        "capabilities": runtime.capabilities,
        "sees": lambda: runtime.sees("/", {}),
        "find_image": lambda: runtime.find_image("x:1"),
        "pull": lambda: list(runtime.pull(reference)),
        "named_digest": lambda: runtime.named_digest(reference),
        "log_in": lambda: runtime.log_in("registry.example", LOGIN),
        "build": lambda: list(runtime.build(packed(Dockerfile=b"FROM scratch\n"), "x:1")),
        "ensure_network": lambda: runtime.ensure_network("x", "x", iter(SUBNETS), {}),
        "remove_network": lambda: runtime.remove_network("x"),
        "create": lambda: runtime.create(plan),
        "start": lambda: runtime.start("x"),
        "stop": lambda: runtime.stop("x", 0),
        "remove": lambda: runtime.remove("x"),
        "pause": lambda: runtime.pause("x"),
        "unpause": lambda: runtime.unpause("x"),
        "inspect": lambda: runtime.inspect("x"),
        "inspect_made": lambda: runtime.inspect_made(plan),
        "list": lambda: runtime.list({}),
        "exec": lambda: runtime.exec("x", ("true",), 1000),
        "terminal": lambda: runtime.terminal("x", ("true",), 80, 24),
        "file": lambda: runtime.file("x", "/x", 1),
        "logs": lambda: runtime.logs("x", 1),
        "follow_logs": lambda: list(runtime.follow_logs("x", 1)),
        "events": lambda: list(runtime.events({})),
    }


@pytest.mark.parametrize("kind", [DockerRuntime, FakeRuntime])
def test_of_an_engine_that_is_away_each_operation_says_so(engine, kind, tmp_path):
    away = kind(f"unix://{tmp_path}/nobody")
    away.is_down = True
    calls = everything(away, engine.plan())
    assert {*calls, "is_suspect"} == ContainerRuntime.__abstractmethods__
    for name, ask in calls.items():
        with pytest.raises(errors.EngineUnavailable):
            pytest.fail(f"{name} answered {ask()!r}")
