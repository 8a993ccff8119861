"""Fixtures of all tests. Real parts: an S3 endpoint, files as root, and the database that DATABASE_URL names."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import sink_servers
from tests.api_calls import Call
from tests.s3 import S3Server

if TYPE_CHECKING:
    from tests.fake_runtime import FakeRuntime
    from tests.real_engine import Engine


def pytest_sessionstart(session: pytest.Session) -> None:
    if os.geteuid() != 0:
        pytest.exit("Tests need root: they make containers' directories, jails and firewall rules.", returncode=1)
    own = os.getpid()

    def end(number: int, frame: object) -> None:
        """End as with Ctrl-C: fixtures take away containers, networks and rules, which outlive this process."""
        if os.getpid() == own:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, end)


@pytest.fixture(scope="session")
def deployments_made() -> Iterator[set[str]]:
    """The ids of the deployments of all tests of this run; at its end, none has rules in this host's packet filter."""
    made: set[str] = set()
    yield made
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines()
    left = [one for one in listed if one.partition("boilerhouse_")[2] in made]
    for one in left:
        subprocess.run(["nft", "delete", *one.split()], check=True)
    assert not left


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a server or an engine are ``slow``: make quick leaves them out.

    Those in this process that ask for no database run on SQLite only. Those of a running stack in a browser are a part of
    their own.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"s3", "any_sink_server", "docker_engine"} & fixtures:
            item.add_marker(pytest.mark.slow)
        if "browser" in fixtures:
            item.add_marker(pytest.mark.browser)
        needs_database = {"db", "transactional_db"} & fixtures or item.get_closest_marker("django_db")
        if not needs_database and not {"stack", "engine"} & set(item.path.parts):
            item.add_marker(pytest.mark.any_database)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """PostgreSQL drops no database that a thread or a process of some test still has open, however briefly."""
    from django.db import connection

    from tests.clearing import quick_clearing

    with django_db_blocker.unblock(), quick_clearing(), django_db_blocker.block():
        yield
    if connection.vendor != "postgresql":
        return
    with django_db_blocker.unblock():
        give_up = time.monotonic() + 5
        while (sessions := _other_sessions()) and time.monotonic() < give_up:
            gc.collect()
            time.sleep(0.1)
        for pid, query in sessions:
            print(f"\nA test left a connection open; its last statement: {query}")
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def _other_sessions() -> list[tuple[int, str]]:
    """Process id and newest statement of every other session of the test's database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, left(query, 200) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchall()  # type: ignore[no-any-return]


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """No user of a test costs the half second of a processor that makes guesses dear."""
    from boilerhouse.dashboard.password_hasher import Hasher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hasher, "iterations", 1)
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session", params=sink_servers.ENDS)
def any_sink_server(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sink_servers.SinkServer]:
    """Each kind of sink, one after another."""
    yield from sink_servers.start(request.param, tmp_path_factory.mktemp("far-end"), s3)


@pytest.fixture
def empty_sink_server(any_sink_server: sink_servers.SinkServer, settings: object) -> sink_servers.SinkServer:
    """Each kind of sink, empty, and allowed in this deployment."""
    if isinstance(any_sink_server, sink_servers.Directory):
        settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(any_sink_server.root)  # type: ignore[attr-defined]
    any_sink_server.clear()
    return any_sink_server


def unmount_below(directory: Path) -> None:
    """Nothing is mounted there any more. A mount that stays fails a later run, when pytest removes this one's files."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([one for one in mounted if Path(one).is_relative_to(directory)]):
        subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.fixture
def data_dir(settings: object, tmp_path: Path, db: None, deployments_made: set[str]) -> Iterator[Path]:
    """A data directory of its own for one test, with the deployment's id written into it. Its mounts go with it."""
    from boilerhouse.core import deployment
    from boilerhouse.core.models import Deployment

    settings.BOILERHOUSE_DATA_DIR = tmp_path  # type: ignore[attr-defined]
    settings.BOILERHOUSE_RAM_DIR = str(tmp_path / "ram")  # type: ignore[attr-defined]
    deployment._checked.cache_clear()
    Deployment.objects.all().delete()
    deployments_made.add(deployment.deployment_id())
    yield tmp_path
    unmount_below(tmp_path)


@pytest.fixture
def fake_engine(settings: object) -> FakeRuntime:
    """An engine in memory, with nothing in it, is the deployment's."""
    from tests.fake_runtime import FakeRuntime
    from tests.runtimes import choose_runtime

    return choose_runtime(settings, FakeRuntime)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """The machine's engine has the image of the example workload."""
    from pools import images

    images.ensure_example()


@pytest.fixture
def engine(docker_engine: None, data_dir: Path, tmp_path: Path, settings: object) -> Iterator[Engine]:
    """The real engine, through a filter, is the deployment's. Its containers and its network are removed."""
    from tests.real_engine import real_engine

    with real_engine(tmp_path, settings) as found:
        yield found


@pytest.fixture
def call(client: Any, db: None, data_dir: Path) -> Call:
    """Ask the API in this process, by default with an admin's key."""
    return Call(client)


@pytest.fixture(autouse=True)
def _forget_deployment() -> Iterator[None]:
    yield
    from django.core.cache import cache
    from django.db import connection

    from boilerhouse.core import deployment
    from boilerhouse.process import processes
    from boilerhouse.web import response_bytes

    cache.clear()
    deployment._checked.cache_clear()
    response_bytes.ledger.clear()
    # A beat may wait for what the test's own transaction holds, which is taken back only after this.
    processes.stop_heartbeat(wait=not connection.in_atomic_block)


@pytest.fixture
def serve() -> Iterator[Callable[[str], None]]:
    """Have this thread count as one of a worker, for the queue that the test names."""
    from boilerhouse.core import context

    yield context.serve
    context.serve("")


@pytest.fixture
def run_tasks() -> Callable[[], int]:
    """Run the queued tasks in this process, after its commit; return their number."""
    from django_q.models import OrmQ

    def run() -> int:
        count = 0
        while (message := OrmQ.objects.order_by("id").first()) is not None:
            task = message.task
            message.delete()
            module, _, name = task["func"].rpartition(".")
            getattr(importlib.import_module(module), name)(*task["args"])
            count += 1
        return count

    return run
