"""What containers need of the host is set up once, however many start at once."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

from pools import host
from pools.errors import HostNotReady


@pytest.fixture
def ram(data_dir, settings):
    settings.BOILERHOUSE_RAM_DIR = ""
    yield
    host.remove_ram_dir()


def mounts() -> int:
    from boilerhouse.core import deployment

    return sum(str(deployment.ram_dir()) in line for line in Path("/proc/mounts").read_text().splitlines())


def test_many_that_start_at_once_mount_one_ram_file_system(ram):
    """Two mounts over each other would hide the secrets that lie in the first."""
    threads = [threading.Thread(target=host.ensure_ram_dir) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert mounts() == 1
    assert (host.ensure_ram_dir().stat().st_mode & 0o777) == 0o700
    host.remove_ram_dir()
    assert mounts() == 0


def test_rules_are_set_once_and_all_go_again(ram):
    bridge = f"bh{uuid.uuid4().hex[:8]}"  # the rules of tests beside this one are listed, too
    threads = [threading.Thread(target=host.ensure_rules, args=(bridge,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout

    assert host.missing_rules(bridge) == []
    assert shown.count(bridge) == 2
    host.remove_rules(bridge)
    assert len(host.missing_rules(bridge)) == 3


def test_without_the_bridge_filter_nothing_starts(ram, monkeypatch, tmp_path):
    """icc=off depends on it: without it containers would reach each other."""
    off = tmp_path / "off"
    off.write_text("0\n")
    monkeypatch.setattr(host, "_BRIDGE_FILTER", off)

    with pytest.raises(HostNotReady, match="bridge-nf-call-iptables"):
        host.ensure_rules("bhtest0")


def test_a_network_is_chosen_that_no_route_of_the_host_uses(ram, settings):
    chosen = list(host._subnets())

    assert len(chosen) >= 32
    assert all(subnet.startswith("10.") and subnet.endswith(".0.0/16") for subnet in chosen)
    settings.BOILERHOUSE_SUBNET = "10.99.0.0/16"
    assert list(host._subnets()) == ["10.99.0.0/16"]


def test_two_that_make_the_network_at_once_get_the_same_one(data_dir, monkeypatch):
    """Docker refuses the second bridge of a name; nobody should meet that."""
    from pools.runtime.base import Network

    inside, seen = [0], []

    class Engine:
        def ensure_network(self, name, bridge, subnets, labels):
            inside[0] += 1
            seen.append(inside[0])
            time.sleep(0.02)
            inside[0] -= 1
            return Network(name, bridge, "10.99.0.0/16", "10.99.0.1")

    monkeypatch.setattr(host, "get_runtime", Engine)
    monkeypatch.setattr(host, "ensure_rules", lambda bridge: None)
    threads = [threading.Thread(target=host.ensure_network) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(seen) == {1}
    assert len(seen) == 8
