"""The engine itself: clients by deadline, its capabilities, and whether it sees this host's directories."""

from __future__ import annotations

import secrets
import threading
import time

import docker.errors
from docker.types import Mount as DockerMount

from boilerhouse.core.deployment import node_id
from pools.runtime.base import Capabilities, ContainerRuntime
from pools.runtime.docker import open_files
from pools.runtime.docker.client import MeteredClient, Speech
from pools.runtime.docker.translation import translated, words_of

FAST_S, SLOW_S, BUILD_S = 10, 60, 600
SUSPECT_S = 5.0
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU time", "PidsLimit": "processes"}
"""The engine's name of a limit that it may not support → ours."""
NEVER = None
"""A deadline for streams: a log may be silent for days."""


class Engine(ContainerRuntime):
    """The engine itself: its clients, its capabilities, and whether it sees this host's directories."""

    def __init__(self, base_url: str) -> None:
        self.node = node_id()
        self._base_url = base_url
        self._clients: dict[float, MeteredClient] = {}
        self._speech = Speech()
        self._lock = threading.Lock()
        self._timed_out_at = -SUSPECT_S

    def _api(self, timeout_s: float = FAST_S) -> MeteredClient:
        self._speech.agreed(self._client(min(timeout_s, FAST_S)))
        client = self._client(timeout_s)
        client.agree()
        return client

    def _client(self, timeout_s: float) -> MeteredClient:
        with self._lock:
            client = self._clients.get(timeout_s)
            if client is None:
                client = self._clients[timeout_s] = MeteredClient(self._base_url, timeout_s, self._speech)
            return client

    def _own_api(self, timeout_s: float | None) -> MeteredClient:
        """A client for one streaming call. The caller closes it."""
        self._speech.agreed(self._client(FAST_S))
        client = MeteredClient(self._base_url, timeout_s, self._speech)
        client.agree()
        return client

    def ping(self, timeout_s: float = FAST_S) -> str:
        with translated():
            return str(self._api(timeout_s).said_version()["Version"])

    def capabilities(self) -> Capabilities:
        with translated():
            api = self._api()
            info, spoken = api.info(), self._speech.agreed(api)
        security = {part for option in info.get("SecurityOptions") or () for part in option.split(",")}
        store = dict(info.get("DriverStatus") or ()).get("driver-type", "")
        return Capabilities(
            version=spoken.engine,
            api_version=spoken.version,
            newest_api_version=spoken.newest,
            cgroup_version=str(info.get("CgroupVersion", "")),
            image_store="containerd" if store.startswith("io.containerd.snapshotter") else str(info.get("Driver", "")),
            is_rootless="name=rootless" in security,
            remaps_users="name=userns" in security,
            cannot_limit=tuple(words for name, words in _LIMITS.items() if info.get(name) is False),
            firewall=str((info.get("FirewallBackend") or {}).get("Driver", "")),
            live_restore=bool(info.get("LiveRestoreEnabled")),
            runtimes=frozenset(info.get("Runtimes", {})),
            cpus=int(info.get("NCPU", 0)),
            memory_mb=int(info.get("MemTotal", 0)) // (1 << 20),
            open_files=open_files.limit(self._base_url),
        )

    def sees(self, path: str, labels: dict[str, str]) -> bool | None:
        with translated():
            api = self._api(SLOW_S)
            host_config = api.create_host_config(
                mounts=[DockerMount("/probe", path, type="bind", read_only=True)], network_mode="none"
            )
            name = f"bh-probe-{secrets.token_hex(8)}"
            failed: docker.errors.APIError | None = None
            for image in api.images(quiet=True):
                try:
                    api.create_container(image, ["probe"], name=name, labels=labels, host_config=host_config)
                except docker.errors.APIError as error:
                    if "bind source path does not exist" in words_of(error):
                        return False
                    failed = error  # such as an image with an impossible VOLUME; another image may work
                    continue
                api.remove_container(name, force=True, v=True)  # any image will do
                return True
            if failed is not None:
                raise failed
        return None

    def is_suspect(self) -> bool:
        return time.monotonic() - self._timed_out_at < SUSPECT_S
