"""The watchdog of a paused container: unpauses it when standard input ends, or after a time (``pools.freezer``)."""

from __future__ import annotations

import contextlib
import select
import sys

import docker.errors

import docker


def main(base_url: str, name: str, after_s: str) -> None:
    select.select([sys.stdin], [], [], float(after_s))
    with contextlib.suppress(docker.errors.APIError):  # it is running already, or does not exist
        docker.APIClient(base_url=base_url, version="auto", timeout=30).unpause(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
