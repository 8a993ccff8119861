"""The host is set up for containers once, however many start at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pools import host


@pytest.fixture
def ram(data_dir, settings):
    settings.BOILERHOUSE_RAM_DIR = ""
    yield
    host.remove_ram_dir()


def mounts() -> int:
    from boilerhouse.core import deployment

    return sum(str(deployment.ram_dir()) in line for line in Path("/proc/mounts").read_text().splitlines())


def test_many_that_start_at_once_mount_one_ram_file_system(ram):
    """A second mount over the first would hide the secrets in it."""
    threads = [threading.Thread(target=host.ensure_ram_dir) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert mounts() == 1
    assert (host.ensure_ram_dir().stat().st_mode & 0o777) == 0o700
    host.remove_ram_dir()
    assert mounts() == 0


def test_a_network_is_chosen_that_no_route_of_the_host_uses(ram, settings):
    chosen = list(host.network._subnets())

    assert len(chosen) >= 32
    assert all(subnet.startswith("10.") and subnet.endswith(".0.0/16") for subnet in chosen)
    settings.BOILERHOUSE_SUBNET = "10.99.0.0/16"
    assert list(host.network._subnets()) == ["10.99.0.0/16"]


def test_two_that_make_the_network_at_once_get_the_same_one(data_dir, monkeypatch):
    """Docker refuses a second bridge with the same name; a caller must not see that."""
    from pools.runtime.base import Network

    inside, seen = [0], []

    class Engine:
        def ensure_network(self, name, bridge, subnets, labels, subnet6):
            inside[0] += 1
            seen.append(inside[0])
            time.sleep(0.02)
            inside[0] -= 1
            return Network(name, bridge, "10.99.0.0/16", "10.99.0.1")

    monkeypatch.setattr(host.network, "get_runtime", Engine)
    threads = [threading.Thread(target=host.ensure_network) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(seen) == {1}
    assert len(seen) == 8
