"""Pulls without a controller beside the test."""

from __future__ import annotations

import contextlib

from pools import errors, pull_runs, pulling
from pools.models import ImagePull
from pools.spec import WorkloadSpec


def found_for(spec: WorkloadSpec) -> pulling.Found:
    """The workload's image as a start finds it, pulled in this process where it has to be."""
    with contextlib.suppress(errors.ImagePending):
        return pulling.Found(pulling.image_for_trial(spec, 0))
    row = pull_runs.take(set())
    assert row is not None
    pull_runs.PullRun(row).run()
    return pulling._outcome(spec, ImagePull.objects.get(pk=row.pk))
