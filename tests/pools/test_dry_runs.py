"""Dry runs of a workload in a real container: they start it as a pool does, and leave nothing."""

from __future__ import annotations

import time

import pytest

from pools import dry_runs, errors, guest, images
from pools.runtime import get_runtime
from tests.make import make_spec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]
PARENT = "echo $PPID"
"""0 if the engine started the command: its parent is then outside of the container."""


@pytest.fixture(autouse=True)
def _example(data_dir):
    images.ensure_example()
    yield
    assert not [one for one in dry_runs._root().iterdir() if one.is_dir()]
    assert not [one for one in get_runtime().list({}) if one.handle.name.startswith("bh-trial-")]


def tried(script: str, *, timeout_ms: int = 30_000, **over) -> dry_runs.DryRun:
    """A dry run with this script as its health check."""
    check = {"command": ["sh", "-c", script], "interval_ms": 1000, "timeout_ms": timeout_ms, "retries": 1,
             "start_period_ms": 0}  # fmt: skip
    return dry_runs.run(make_spec(**{"command": ["sleep", "1000"], "ports": [], "health_check": check, **over}))


def test_the_health_check_goes_by_the_guest_agent_as_in_a_pool():
    outcome = tried(f"cat /proc/1/cmdline | tr '\\0' ' '; {PARENT}; echo on-stderr >&2")
    assert outcome.is_healthy, outcome
    assert "/.boilerhouse/agent init" in outcome.output
    assert outcome.output.split()[-2] != "0", outcome.output
    assert outcome.output.endswith("on-stderr\n")


@pytest.mark.parametrize("why", ["the workload's own init", "no program"])
def test_without_an_agent_it_goes_by_the_engine(why, settings):
    if why == "no program":
        settings.BOILERHOUSE_GUEST_AGENT = ""
    outcome = tried(PARENT, init=why == "no program")
    assert (outcome.is_healthy, outcome.output) == (True, "0\n")


def test_a_check_that_hangs_ends_and_a_main_process_that_ends_is_said():
    began = time.monotonic()
    late = tried("sleep 1000", timeout_ms=500)
    assert not late.is_healthy
    assert "did not end within 500 ms" in late.message
    assert time.monotonic() - began < dry_runs.LIMIT_S
    ended = tried("sleep 1000", command=["sh", "-c", "sleep 0.5; exit 7"])
    assert (ended.is_healthy, ended.exit_code) == (False, 7)


def test_a_command_that_does_not_exist_says_so():
    outcome = dry_runs.run(make_spec(command=["no-such-program"], ports=[]))
    assert not outcome.is_healthy
    assert "no-such-program" in outcome.message + outcome.log


def test_a_check_that_is_lost_is_made_again(monkeypatch):
    """The agent ends with its container, which the engine may notice later."""
    calls, real = [], guest.run_at

    def run_at(*args, **more):
        calls.append(args)
        if len(calls) == 1:
            raise errors.CommandLost
        return real(*args, **more)

    monkeypatch.setattr(guest, "run_at", run_at)
    outcome = tried("true")
    assert (outcome.is_healthy, outcome.attempts) == (True, 2)
