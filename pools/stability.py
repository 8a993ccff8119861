"""Whether a pool's warm containers stay healthy: those that fail soon after they became warm are replaced ever more
slowly.

Otherwise a pool whose containers pass only their first health check would create and remove them forever.
"""

from __future__ import annotations

from datetime import timedelta

from boilerhouse.core import clock
from pools import conditions
from pools.models import Container, Pool
from pools.states import ContainerState, Fault, Trouble

STAYS = timedelta(minutes=10)
"""A container that has been healthy for this long counts as stable."""
QUIET_FAILURES = 2
"""This many failures may have unrelated causes, such as an engine restart."""
COUNTED = frozenset({Fault.EXIT, Fault.OOM, Fault.UNHEALTHY})


def is_steady(pool: Pool) -> bool:
    """Whether some container of the pool has proven stable."""
    containers = pool.containers.filter(state__in=[ContainerState.IDLE, ContainerState.CLAIMED], fault="")
    return containers.filter(created_at__lt=clock.now() - STAYS).exists()


def counts(pool: Pool) -> bool:
    """Whether unstable containers are being counted; one more that becomes warm does not end that."""
    return bool(pool.failures) and pool.trouble in ("", Trouble.UNSTABLE)


def note_failure(pool: Pool, container: Container, fault: Fault, detail: str) -> None:
    """Count a failed idle container of the locked pool; from the second on, the pool reports it."""
    if fault not in COUNTED or container.created_at < clock.now() - STAYS or is_steady(pool):
        return
    changes = conditions.back_off(pool)
    if pool.failures < QUIET_FAILURES or pool.trouble not in ("", Trouble.UNSTABLE):
        if changes:
            Pool.objects.filter(pk=pool.pk).update(**changes)
        return
    conditions.report(pool, Trouble.UNSTABLE, f"Containers become warm and then fail. {detail}", **changes)
