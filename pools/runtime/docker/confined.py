"""The confinement of a container's first process according to the kernel, if this host can see it.

An engine without seccomp, or on a kernel without it, starts containers without the profile, and ``inspect`` does not
show that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pools import host_processes

SAME_KERNEL = frozenset({"runc", "crun", "io.containerd.runc.v2"})
"""Runtimes whose containers are processes of this kernel; with others, the first process is the sandbox's own."""
SETTLES_S = 1.0
"""The profile is applied just before the program starts; the engine may answer a moment earlier."""
LOOK_EVERY_S = 0.005
NO_CAPABILITY = "0" * 16


def differences(document: Mapping[str, Any]) -> list[str]:
    """How the process is less confined than every container must be, as text. Empty if it is not visible here."""
    if document["HostConfig"].get("Runtime") not in SAME_KERNEL:
        return []
    expected = {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "CapBnd": NO_CAPABILITY,
        "CapPrm": NO_CAPABILITY,
    }
    until = time.monotonic() + SETTLES_S
    while True:
        status = host_processes.status(document["State"]["Pid"], document["Id"])
        if status is None:
            return []
        wrong = {name: status.get(name, "nothing") for name, value in expected.items() if status.get(name) != value}
        if not wrong or time.monotonic() > until:
            return [
                f"{name} of its first process is {actual} instead of {expected[name]}" for name, actual in wrong.items()
            ]
        time.sleep(LOOK_EVERY_S)
