"""Image pulls without a controller next to the test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from boilerhouse.queues import wakeup_pipes
from pools import errors, image_pulls, pull_runs
from pools.models import ImagePull
from pools.pull_runner import PullRunner
from pools.spec import WorkloadSpec


def found_for(spec: WorkloadSpec) -> image_pulls.ImageForStart:
    """The workload's image as a start finds it, pulled in this process where it has to be."""
    with contextlib.suppress(errors.ImagePending):
        return image_pulls.image_for_trial(spec, 0)
    row = pull_runs.take(set())
    assert row is not None
    pull_runs.PullRun(row).run()
    return image_pulls._outcome(spec, ImagePull.objects.get(pk=row.pk))


@contextlib.contextmanager
def pulled_beside() -> Iterator[None]:
    """What pulls in the controller pulls beside the test; the test must commit."""
    stop = threading.Event()
    thread = threading.Thread(target=PullRunner(stop)._forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        wakeup_pipes.notify(image_pulls.BELL)
        thread.join(10)
