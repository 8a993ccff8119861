"""Docker's create request for a plan."""

from __future__ import annotations

from typing import Any

from docker.types import DeviceRequest, Healthcheck, LogConfig, Ulimit
from docker.types import Mount as DockerMount

import docker
from pools.runtime import seccomp
from pools.runtime.base import DEFAULT_OPEN_FILES, ContainerPlan, Tmpfs

ULIMITS = {"nofile": (DEFAULT_OPEN_FILES, DEFAULT_OPEN_FILES), "core": (0, 0)}
"""Soft and hard limits, unless the workload sets them."""


def arguments(api: docker.APIClient, plan: ContainerPlan) -> dict[str, Any]:
    """Arguments of ``create_container`` for the plan's container."""
    health = plan.probe and Healthcheck(
        test=["CMD", *plan.probe.command],
        interval=plan.probe.interval_ms * 1_000_000,
        timeout=plan.probe.timeout_ms * 1_000_000,
        retries=plan.probe.retries,
        start_period=max(plan.probe.start_period_ms, 1) * 1_000_000,  # 0 would mean the image's
    )
    if plan.is_probe_off:
        health = Healthcheck(test=["NONE"])
    networking = None
    if plan.address:
        end = api.create_endpoint_config(ipv4_address=plan.address, ipv6_address=plan.address6 or None)
        networking = {"EndpointsConfig": {plan.network: end}}
    return {
        "image": plan.image,
        "command": list(plan.command) or None,
        "entrypoint": None if plan.entrypoint is None else list(plan.entrypoint),
        "working_dir": plan.working_dir,
        "stop_signal": plan.stop_signal,
        "user": f"{plan.uid}:{plan.uid if plan.gid is None else plan.gid}",
        "environment": plan.environment,
        "labels": plan.labels,
        "hostname": None if plan.network == "host" else plan.name[:63],
        "ports": list(plan.exposed),
        "host_config": _host_config(api, plan),
        "networking_config": networking,
        "healthcheck": health,
    }


def _host_config(api: docker.APIClient, plan: ContainerPlan) -> dict[str, Any]:
    return dict(
        api.create_host_config(
            read_only=plan.read_only_root,
            cap_drop=["ALL"],
            group_add=[str(gid) for gid in plan.groups] or None,
            security_opt=["no-new-privileges=true", seccomp.option()],
            pids_limit=plan.pids_limit,
            mem_limit=f"{plan.memory_mb}m",
            memswap_limit=f"{plan.memory_mb}m",
            nano_cpus=int(plan.cpus * 1_000_000_000),
            tmpfs={item.path: _options(item) for item in plan.tmpfs},
            shm_size=f"{plan.shm_mb}m",
            ipc_mode="private",
            init=plan.init,
            ulimits=_ulimits(plan),
            log_config=LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
            restart_policy={"Name": "no"},
            mounts=_binds(plan),
            network_mode=plan.network,
            dns=list(plan.dns) or None,
            extra_hosts=[f"{name}:{address}" for name, address in plan.extra_hosts] or None,
            port_bindings={f"{p.container_port}/{p.protocol}": (p.host, p.host_port) for p in plan.ports},
            runtime=plan.runtime,
            devices=[f"{item.path}:{item.path}:{item.permissions}" for item in plan.devices] or None,
            device_requests=_device_requests(plan),
        )
    )


def _ulimits(plan: ContainerPlan) -> list[Ulimit]:
    limits = {**ULIMITS, **{ulimit.name: (ulimit.soft, ulimit.hard) for ulimit in plan.ulimits}}
    return [Ulimit(name=name, soft=soft, hard=hard) for name, (soft, hard) in limits.items()]


def _device_requests(plan: ContainerPlan) -> list[DeviceRequest] | None:
    if plan.gpus is None:
        return None
    return [DeviceRequest(count=plan.gpus.count, device_ids=list(plan.gpus.ids), capabilities=[["gpu"]])]


def _options(tmpfs: Tmpfs) -> str:
    run = "exec" if tmpfs.is_exec else "noexec"
    return f"rw,{run},nosuid,nodev,size={tmpfs.size_mb}m,mode={tmpfs.mode:o},uid={tmpfs.uid},gid={tmpfs.gid}"


def _binds(plan: ContainerPlan) -> list[DockerMount]:
    """The volumes, and an unused one for each VOLUME of the image that has a tmpfs.

    The engine creates an anonymous volume for every VOLUME that the request does not bind; under a tmpfs it mounts
    neither. If another engine did mount this one, it would be empty and read-only.
    """
    declared = [memory_mount.path for memory_mount in plan.tmpfs if memory_mount.is_declared]
    hidden = [DockerMount(path, plan.placeholder, type="bind", read_only=True) for path in declared]
    return [DockerMount(m.target, m.source, type="bind", read_only=m.read_only) for m in plan.mounts] + hidden
