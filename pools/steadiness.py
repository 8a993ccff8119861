"""Whether a pool's warm containers last: those that fail soon after they were warm are replaced more and more slowly.

Without that a pool whose containers pass their first health check and no later one would make and remove them for ever.
"""

from __future__ import annotations

from datetime import timedelta

from boilerhouse.core import clock
from pools import trouble
from pools.models import Container, Pool
from pools.states import ContainerState, Fault, Trouble

STAYS = timedelta(minutes=10)
"""A container that has been well for so long is steady."""
QUIET_FAILURES = 2
"""So many may have causes of their own, such as an engine that was restarted."""
COUNTED = frozenset({Fault.EXIT, Fault.OOM, Fault.UNHEALTHY})


def is_steady(pool: Pool) -> bool:
    """Whether some container of the pool has lasted."""
    kept = pool.containers.filter(state__in=[ContainerState.IDLE, ContainerState.CLAIMED], fault="")
    return kept.filter(created_at__lt=clock.now() - STAYS).exists()


def counts(pool: Pool) -> bool:
    """Whether containers that did not last are being counted: one more that becomes warm is no end of that."""
    return bool(pool.failures) and pool.trouble in ("", Trouble.UNSTABLE)


def note_failure(pool: Pool, container: Container, fault: Fault, detail: str) -> None:
    """Count an idle container of the locked pool that failed; the pool says so when it is not the first."""
    if fault not in COUNTED or container.created_at < clock.now() - STAYS or is_steady(pool):
        return
    changes = trouble.back_off(pool)
    if pool.failures < QUIET_FAILURES or pool.trouble not in ("", Trouble.UNSTABLE):
        if changes:
            Pool.objects.filter(pk=pool.pk).update(**changes)
        return
    trouble.report(pool, Trouble.UNSTABLE, f"Containers become warm and then fail. {detail}", **changes)
