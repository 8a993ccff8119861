"""Removes everything of this deployment from the host: containers, network, rules, directories."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable

from boilerhouse.core import deployment
from boilerhouse.core.errors import Conflict
from boilerhouse.core.models import Process
from boilerhouse.process import processes
from pools import dry_runs, firewall, host, lifecycle, quota, reserve, volumes
from pools.models import Container
from pools.runtime import get_runtime
from pools.runtime.base import Observed
from pools.volumes import staged_restores


class StillRunning(Conflict):
    """Processes of this deployment are running; stop them first."""

    code = "still_running"


def purge() -> dict[str, int]:
    """Remove everything with this deployment's label on this node, and nothing else.

    The network and packet filter, which nodes of the deployment share on one engine, stay while another node has
    containers there. Raises StillRunning, and EngineFailure if the engine keeps the network; everything else is then
    removed.
    """
    living = Process.objects.filter(pk__in=processes.living()).exclude(kind=Process.Kind.COMMAND)
    if living.exists():
        raise StillRunning(f"{living.count()} processes of this deployment are running; stop them first.")
    runtime = get_runtime()
    listed = runtime.list(host.labels())
    ours = host.of_this_node(listed)
    for observed in ours:
        runtime.remove(observed.handle.name)
    dry_runs.remove_all()
    is_alone = len(ours) == len(listed)
    others = _of_other_nodes(listed)
    if is_alone:
        firewall.remove(host.bridge_name())
    removed = 0
    for directory in (volumes.containers_dir(), volumes.trash_dir(), staged_restores.directory(), deployment.ram_dir()):
        if directory.is_dir():
            for path in directory.iterdir():
                if path.name in others:
                    continue
                quota.release(path)
                volumes.destroy(path)
                removed += 1
    with contextlib.suppress(OSError):
        host.remove_ram_dir()
    for name in ("slots", "empty"):
        shutil.rmtree(deployment.data_dir() / name, ignore_errors=True)
    shutil.rmtree(deployment.gateway_dir(), ignore_errors=True)
    reserve.remove()
    # Last: an engine that miscounts a network's endpoints (rarely, 20.10) keeps the network until it is restarted.
    if is_alone:
        runtime.remove_network(host.network_name())
    return {"containers": len(ours), "directories": removed}


def _of_other_nodes(listed: Iterable[Observed]) -> set[str]:
    """Names of other nodes' directories: nodes of one machine may share the directory of secrets."""
    others = Container.objects.exclude(pk__in=Container.objects.here().values("pk"))
    ids = {str(pk) for pk in others.values_list("pk", flat=True)}
    labels = [observed.labels for observed in listed]
    return ids | {each.get(lifecycle.CONTAINER_LABEL, "") for each in labels if host.is_of_another_node(each)}
