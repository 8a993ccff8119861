"""Runs the programs that set and show this host's network."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from pools.errors import HostNotReady

TIMEOUT_S = 15


def run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """What the program said; it may have failed. Raises HostNotReady when it cannot be run or does not end."""
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostNotReady(
            f"{command[0]} cannot be run: {error}. Install nftables, iproute2 and util-linux."
        ) from error
