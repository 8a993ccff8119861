"""Purge removes all that the engine permits, and reports the rest with the reason."""

from __future__ import annotations

import docker.errors
import pytest
import requests

from pools import cleanup, dry_runs, errors, firewall, volumes
from pools.runtime.docker import translated
from tests.fake_runtime import FakeRuntime
from tests.runtimes import choose_runtime

MISCOUNTED = "error while removing network: network boilerhouse-1 id 2 has active endpoints"


class Miscounting(FakeRuntime):
    def remove_network(self, name):
        with translated():
            raise refusal(MISCOUNTED)


def refusal(words: str) -> docker.errors.APIError:
    answer = requests.Response()
    answer.status_code = 403
    return docker.errors.APIError("refused", response=answer, explanation=words)


def test_an_engine_that_keeps_the_network_keeps_nothing_else(data_dir, settings, monkeypatch):
    """Docker 20.10 sometimes counts a deleted endpoint until it is restarted."""
    removed = []
    choose_runtime(settings, Miscounting)
    monkeypatch.setattr(dry_runs, "remove_all", lambda: removed.append("trials"))
    monkeypatch.setattr(firewall, "remove", lambda bridge: removed.append("rules"))
    left = volumes.containers_dir() / "left"
    left.mkdir(parents=True)

    with pytest.raises(errors.EngineFailure, match="active endpoints"):
        cleanup.purge()
    assert removed == ["trials", "rules"]
    assert not left.exists()


def test_a_socket_that_refuses_a_call_is_told_from_an_engine_that_does():
    with pytest.raises(errors.EngineFailure, match="proxy denied this call"), translated():
        raise refusal("not for you")
    with pytest.raises(errors.EngineFailure, match="active endpoints"), translated():
        raise refusal(MISCOUNTED)
