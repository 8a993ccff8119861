"""Runs the programs that configure and show this host's network."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from pools.errors import HostNotReady

TIMEOUT_S = 15


def run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program and return its result, even a failure. Raises HostNotReady if it cannot run or does not end."""
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostNotReady(f"Cannot run {command[0]}: {error}. Install nftables, iproute2 and util-linux.") from error
