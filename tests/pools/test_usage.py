"""Usage from the kernel's files, cgroup v1 and v2, and its bounded retention."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from pools import usage
from pools.models import ContainerUsage, PoolUsage
from pools.states import ContainerState
from tests.make import make_container, make_pool

RUNTIME_ID = "a" * 64


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def v1(root, parent=f"docker/{RUNTIME_ID}", cpu=5_000_000):
    write(root, {
        f"memory/{parent}/memory.usage_in_bytes": "1048576\n", f"cpuacct/{parent}/cpuacct.usage": f"{cpu}\n",
        f"pids/{parent}/pids.current": "3\n",
    })  # fmt: skip


def test_both_versions_of_cgroups_are_read(tmp_path):
    v1(tmp_path / "one")
    v1(tmp_path / "systemd", f"system.slice/docker-{RUNTIME_ID}.scope")
    group = f"system.slice/docker-{RUNTIME_ID}.scope"
    write(tmp_path / "two", {
        "cgroup.controllers": "cpu memory pids", f"{group}/cpu.stat": "usage_usec 5000\nuser_usec 1\n",
        f"{group}/memory.current": "1048576\n", f"{group}/pids.current": "3\n",
    })  # fmt: skip

    for root in ("one", "systemd", "two"):
        assert usage.read(RUNTIME_ID, tmp_path / root) == usage.Sample(5_000_000, 1_048_576, 3), root


def test_a_container_that_ended_has_no_sample(tmp_path):
    assert usage.read(RUNTIME_ID, tmp_path) is None
    write(tmp_path / "two", {"cgroup.controllers": "cpu"})
    assert usage.read(RUNTIME_ID, tmp_path / "two") is None


def test_samples_add_up_per_pool_and_rates_come_from_two(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(usage.read, "__defaults__", (tmp_path / "cg",))
    v1(tmp_path / "cg", cpu=1_000_000_000)
    pool = make_pool(min_size=1)
    make_container(pool, runtime_id=RUNTIME_ID, disk_bytes=7)
    make_container(pool, state=ContainerState.CLAIMED, runtime_id="b" * 64)
    assert usage.sample() == 1
    usage.sample_pools()
    v1(tmp_path / "cg", cpu=2_000_000_000)
    usage.sample()
    usage.sample_pools()

    first, second = PoolUsage.objects.order_by("at")
    assert (first.idle, first.claimed, first.size, first.cpu_cores) == (1, 1, 2, 0)
    assert second.cpu_cores > 0
    assert (second.memory_bytes, second.disk_bytes) == (1_048_576, 7)


def test_old_samples_are_forgotten(data_dir, settings):
    settings.BOILERHOUSE_USAGE_RETENTION_S = settings.BOILERHOUSE_POOL_USAGE_RETENTION_S = 60
    container = make_container()
    now = timezone.now()
    for age in (10, 100):
        at = now - timedelta(seconds=age)
        ContainerUsage.objects.create(container_id=container.pk, at=at, cpu_ns=1, memory_bytes=1, pids=1)
        PoolUsage.objects.create(
            pool=container.pool, at=at, idle=0, claimed=0, size=0, waiting=0, desired_size=0, cpu_cores=0,
            memory_bytes=0, disk_bytes=0,
        )  # fmt: skip

    assert usage.forget_old() == 2
    assert (ContainerUsage.objects.count(), PoolUsage.objects.count()) == (1, 1)
