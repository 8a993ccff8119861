"""Whether a container runs is known from its guest agent, which is its process 1, else from the engine."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from uuid import uuid4

import pytest

from pools import errors, liveness
from pools.guest import connections
from tests.guest_agent import lying_agent, sealed_agent


@pytest.fixture
def engine(monkeypatch):
    """What the engine says, and how often it was asked."""
    said = SimpleNamespace(asked=0, observed=SimpleNamespace(is_running=False))

    def inspect(_name, timeout_s):
        said.asked += 1
        if isinstance(said.observed, Exception):
            raise said.observed
        return said.observed

    monkeypatch.setattr(liveness, "get_runtime", lambda: SimpleNamespace(inspect=inspect))
    return said


def test_an_agent_that_answers_is_proof_and_the_engine_is_not_asked(tmp_path, monkeypatch, engine):
    engine.observed = errors.EngineUnavailable("down")
    with sealed_agent(tmp_path / "run", monkeypatch):
        assert liveness.is_running(uuid4(), 5)
    assert engine.asked == 0


def test_of_an_agent_that_was_killed_the_engine_decides(tmp_path, monkeypatch, engine):
    with sealed_agent(tmp_path / "run", monkeypatch) as agent:
        os.kill(agent.process_1(), signal.SIGKILL)
        agent._unshare.wait(10)
        assert not liveness.is_running(uuid4(), 5)
        engine.observed = None
        assert not liveness.is_running(uuid4(), 5)
        engine.observed = errors.EngineUnavailable("down")
        with pytest.raises(errors.EngineUnavailable):
            liveness.is_running(uuid4(), 5)
    assert engine.asked == 3


def test_an_agent_that_hangs_or_lies_costs_a_moment_and_proves_nothing(tmp_path, monkeypatch, engine):
    with sealed_agent(tmp_path / "run", monkeypatch) as agent:
        os.kill(agent.process_1(), signal.SIGSTOP)
        began = time.monotonic()
        assert not liveness.is_running(uuid4(), 5)
        assert time.monotonic() - began < 5 * liveness.AGENT_S
        os.kill(agent.process_1(), signal.SIGCONT)
    with lying_agent(tmp_path / "lies", b"?" * 64, b"", b"", 0):
        monkeypatch.setattr(connections, "run_dir", lambda _: tmp_path / "lies")
        assert not liveness.is_running(uuid4(), 5)
    assert engine.asked == 2


def test_a_container_without_an_agent_is_asked_for_at_the_engine(data_dir, engine):
    engine.observed = SimpleNamespace(is_running=True)
    assert liveness.is_running(uuid4(), 5)
    assert engine.asked == 1
