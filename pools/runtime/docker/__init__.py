"""The Docker Engine as runtime; besides ``pools.runtime.unpause`` the only package that imports docker.

Only the low-level client: the models ask twice. ``dialect`` says which API version is spoken.
"""

from __future__ import annotations

from pools.runtime.docker.runtime import DockerRuntime
from pools.runtime.docker.translation import translated

__all__ = ["DockerRuntime", "translated"]
