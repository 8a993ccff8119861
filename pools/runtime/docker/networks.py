"""Networks at the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import docker.errors
from docker.types import IPAMConfig, IPAMPool

import docker
from pools import errors
from pools.runtime.base import Network
from pools.runtime.docker.engine import SLOW_S, Engine
from pools.runtime.docker.translation import translated, words_of


class Networks(Engine):
    """Operations on the networks of containers."""

    def ensure_network(
        self, name: str, bridge: str, subnets: Iterator[str], labels: dict[str, str], subnet6: str = ""
    ) -> Network:
        with translated():
            if (network := self._known_network(name)) is not None:
                if network.subnet6 == subnet6 or self._api().inspect_network(name)["Containers"]:
                    return network
                self._api(SLOW_S).remove_network(name)
                subnets = chain([network.subnet], subnets)
            ipv6 = [IPAMPool(subnet=subnet6)] if subnet6 else []
            for subnet in subnets:
                try:
                    self._api(SLOW_S).create_network(
                        name,
                        driver="bridge",
                        check_duplicate=True,
                        labels=labels,
                        enable_ipv6=bool(subnet6),
                        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet), *ipv6]),
                        options={
                            "com.docker.network.bridge.enable_icc": "false",
                            "com.docker.network.bridge.name": bridge,
                        },
                    )
                except docker.errors.APIError as error:
                    if "overlap" in words_of(error):
                        continue
                    if "already exists" not in words_of(error):
                        raise
                return self._network(self._api().inspect_network(name))
            raise errors.HostNotReady("No /16 network is free on this host; set BOILERHOUSE_SUBNET.")

    def _known_network(self, name: str) -> Network | None:
        documents = self._api().networks(names=[name])
        return next((self._network(document) for document in documents if document["Name"] == name), None)

    def _network(self, document: dict[str, Any]) -> Network:
        pools = {":" in subnet["Subnet"]: subnet for subnet in document["IPAM"]["Config"]}
        bridge = document["Options"].get("com.docker.network.bridge.name", f"br-{document['Id'][:12]}")
        subnet6 = pools[True]["Subnet"] if True in pools and document.get("EnableIPv6") else ""
        return Network(document["Name"], bridge, pools[False]["Subnet"], pools[False].get("Gateway", ""), subnet6)

    def remove_network(self, name: str) -> None:
        with translated(), contextlib.suppress(docker.errors.NotFound):
            self._api(SLOW_S).remove_network(name)
