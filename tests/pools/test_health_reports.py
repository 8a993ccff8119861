"""How the output of a health check is reported."""

from __future__ import annotations

import pytest

from pools import health_reports
from pools.models import Container
from pools.runtime.base import Handle, Observed, Probed
from pools.states import ContainerHealth, ContainerState
from tests.make import make_container

pytestmark = pytest.mark.any_database


class ClaimedMeanwhile:
    """An engine that is queried while a claim takes the container; ``to`` is the container's state then."""

    def __init__(self, to: ContainerState) -> None:
        self.to = to

    def inspect(self, name: str) -> Observed:
        Container.objects.update(state=self.to)
        probed = Probed(("check",), 7, "token \0CANARY\n\x1b[31mbad")
        return Observed(Handle("n", "i", name), {}, True, "running", probed=probed)


@pytest.mark.parametrize(("to", "shown"), [(ContainerState.CLAIMED, ""), (ContainerState.IDLE, ": token CANARY bad")])
def test_what_a_check_prints_is_told_only_of_a_container_that_no_tenant_has(data_dir, monkeypatch, to, shown):
    """It was read as idle, claimed, and its tenant's output was shown to viewers (P10). PostgreSQL cannot store a
    NUL (P7)."""
    container = make_container()
    monkeypatch.setattr("pools.runtime._runtime", lambda *_: ClaimedMeanwhile(to))
    assert health_reports.report_health(container.pk, ContainerHealth.UNHEALTHY)
    assert f" fails: exit code 7{shown}." in Container.objects.get().error
