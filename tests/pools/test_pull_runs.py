"""Image pulls are rows that the controller's threads work on: no start waits for one, and failures are reported."""

from __future__ import annotations

import threading

import pytest
from django_q.models import OrmQ

from boilerhouse.core.models import Event
from boilerhouse.process import processes
from pools import errors, image_pulls, lifecycle, pull_runs, sizing
from pools.models import Container, ImagePull, Pool
from pools.pull_errors import PullFault
from pools.pull_runner import PullRunner
from pools.states import ContainerState, PullState
from tests import registry as registries
from tests.make import make_container, make_pool, make_spec, make_workload
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture(autouse=True)
def _deployment(data_dir):
    pass


def start_of(image, policy="missing", **over):
    """A start of a new pool's container that this process owns."""
    pool = make_pool(workload=make_workload(image=image, pull_policy=policy), min_size=1, **over)
    return make_container(pool, state=ContainerState.STARTING, owner=processes.current())


def image_for(row):
    return image_pulls.image_for_start(row, row.version.spec)


@pytest.fixture
def runner():
    stop = threading.Event()
    made = PullRunner(stop)
    yield made
    stop.set()
    for run, thread in made._runs.values():
        run.give_up(is_stalled=False)
        thread.join(20)


def test_a_start_asks_for_a_pull_and_does_not_wait_for_it(registry):
    """One row for all that need the image; each start frees its worker, and continues when the pull ends."""
    registry.put("shared")
    image = f"{registry.host}/shared:1"
    rows = [start_of(image), start_of(image)]
    try:
        for row in rows:
            with pytest.raises(errors.ImagePending):
                image_for(row)
        assert ImagePull.objects.get().state == PullState.WAITING
        assert set(Container.objects.values_list("owner", "pull")) == {(None, ImagePull.objects.get().pk)}
        pull = pull_runs.take(set())
        assert pull_runs.take({pull.pk}) is None

        pull_runs.PullRun(pull).run()

        assert ImagePull.objects.get().state == PullState.DONE
        assert {m.task["args"][0] for m in OrmQ.objects.all()} == {str(row.pk) for row in rows}
        assert image_for(rows[0]).failed is None
    finally:
        registries.forget(image)


def test_always_goes_on_with_an_old_image_says_so_and_stops_saying_so(registry):
    """A pool that uses an old image because the registry does not answer reports that until a pull succeeds."""
    registry.put("old")
    image = f"{registry.host}/old:1"
    list(image_pulls.get_runtime().pull(image_pulls.references.parse(image)))
    row = start_of(image, "always")
    pool_id = row.pool_id
    registry.stop()
    try:
        with pytest.raises(errors.ImagePending):
            image_for(row)
        pull_runs.PullRun(pull_runs.take(set())).run()
        found = image_for(row)
        assert found.failed.fault == PullFault.UNREACHABLE
        image_pulls.count_failure(row.pool, found.failed)
        warned = Event.objects.get(type="pool.warning", pool_id=pool_id)
        assert warned.payload["code"] == "image_stale"
        assert "connection refused" in warned.payload["detail"]
        status = Pool.objects.with_counts().get(pk=pool_id).status()
        assert [one.code for one in status.warnings] == ["image_stale"]
    finally:
        registry.start()
    ImagePull.objects.update(finished_at="2020-01-01T00:00:00Z")
    try:
        assert image_pulls.ask_again() == 1
        pull_runs.PullRun(pull_runs.take(set())).run()
        assert Event.objects.filter(type="pool.recovered", payload__code="image_stale").exists()
        assert Pool.objects.with_counts().get(pk=pool_id).status().warnings == []
    finally:
        registries.forget(image)


def test_a_failed_pull_is_the_failure_of_the_start(registry):
    row = start_of(f"{registry.host}/nothing:1")
    with pytest.raises(errors.ImagePending):
        image_for(row)
    pull_runs.PullRun(pull_runs.take(set())).run()

    with pytest.raises(image_pulls.PullFailed, match=r"manifest unknown|: not found"):
        image_for(row)


def test_a_pull_whose_process_died_is_taken_up_again():
    """kill -9 in the middle."""
    with pytest.raises(errors.ImagePending):
        image_for(start_of("127.0.0.1:9/a:1"))
    ImagePull.objects.update(state=PullState.RUNNING, owner="01a21b93-2209-739c-bef5-4bf23d7f6e79")

    assert pull_runs.take(set()).owner == processes.current()


def test_one_registry_takes_at_most_half_of_the_places(settings):
    """A slow registry leaves slots for others."""
    settings.BOILERHOUSE_PARALLEL_PULLS = 4
    for image in ("127.0.0.1:9/a", "127.0.0.1:9/b", "127.0.0.1:9/c", "127.0.0.2:9/d"):
        with pytest.raises(errors.ImagePending):
            image_for(start_of(image))
    held: set[int] = set()
    taken = []
    while (row := pull_runs.take(held)) is not None:
        held.add(row.pk)
        taken.append(row.image)

    assert taken == ["127.0.0.1:9/a", "127.0.0.1:9/b", "127.0.0.2:9/d"]


def test_progress_is_shown_and_a_stalled_pull_ends(registry, runner, settings):
    """Bytes, percent and remaining time during a pull; it fails if it stalls, not because of its size."""
    settings.BOILERHOUSE_TRANSFER_STALL_S = 4
    registry.put("slow", size=4_000_000)  # containerd counts by the MiB
    line = registry.line(bytes_per_second=512 * 1024)
    row = start_of(f"{line.host}/slow:1")
    with pytest.raises(errors.ImagePending):
        image_for(row)
    runner.turn()

    shown = eventually(
        lambda: (
            (Pool.objects.with_counts().get().status().pulling or {}).get("percent")
            and Pool.objects.with_counts().get().status().pulling
        )
    )
    assert 0 < shown["bytes"] < shown["totalBytes"]
    assert Event.objects.filter(type="pool.pulling", pool_id=row.pool_id).exists()
    line.is_dead = True
    eventually(lambda: runner.turn() or ImagePull.objects.get().state == PullState.FAILED)
    assert ImagePull.objects.get().fault == PullFault.STALLED


def test_a_start_that_nobody_wants_any_more_stands_in_nobodys_way():
    """Another image of the workload does not wait for the pull of the old one."""
    row = start_of("127.0.0.1:9/a:1", good_version=None)
    with pytest.raises(errors.ImagePending):
        image_for(row)
    newer = make_spec(image="127.0.0.1:9/b:1")
    row.pool.workload.versions.create(number=2, spec_json=newer.to_json())

    sizing.refill(row.pool_id)

    assert Container.objects.get(pk=row.pk).state == ContainerState.REMOVING


def test_starts_that_wait_for_a_pull_are_not_handed_on_again_and_again():
    row = start_of("127.0.0.1:9/a:1")
    with pytest.raises(errors.ImagePending):
        image_for(row)

    assert lifecycle.stuck_containers(image_pulls.clock.now() + image_pulls.TRIAL_WANTS) == []
