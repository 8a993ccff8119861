"""The runtime, combined from its parts."""

from __future__ import annotations

from pools.runtime.docker.commands import Commands
from pools.runtime.docker.containers import Containers
from pools.runtime.docker.files import Files
from pools.runtime.docker.images import Images
from pools.runtime.docker.networks import Networks
from pools.runtime.docker.outputs import Outputs


class DockerRuntime(Images, Networks, Containers, Files, Outputs, Commands):
    """A Docker Engine, or one that speaks its API."""
