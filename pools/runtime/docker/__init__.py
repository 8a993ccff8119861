"""The Docker Engine as runtime; besides ``pools.runtime.unpause`` the only package that imports docker.

It uses only the low-level client, because the models make two requests. ``dialect`` selects the API version.
"""

from __future__ import annotations

from pools.runtime.docker.runtime import DockerRuntime
from pools.runtime.docker.translation import translated

__all__ = ["DockerRuntime", "translated"]
