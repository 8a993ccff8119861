"""VOLUMEs of real images: bounded memory, removed with the container, and no volumes of the engine."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from uuid import UUID

import pytest

from pools import lifecycle
from pools import volumes as volumes_module
from pools.runtime import get_runtime
from tests.docker_command import docker
from tests.stack.conftest import eventually, manage

RUN = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
STATE = "t/${tenantId}/"


def volumes_of_the_engine() -> set[str]:
    return set(docker("volume", "ls", "-q").split())


@pytest.fixture(scope="module")
def image(stack, tmp_path_factory):
    """Build images of the example's files with other VOLUMEs: ``image("/data", "/x")``."""
    whole, made = tmp_path_factory.mktemp("image") / "fs.tar", dict[str, str]()
    name = docker("create", "boilerhouse/example-workload:1").strip()
    docker("export", name, "-o", str(whole))
    docker("rm", name)

    def make(*declared: str, links: dict[str, str] | None = None) -> str:
        tag = f"test-image-volumes:{len(made)}"
        tar = whole
        if links:
            tar = whole.with_name(f"{len(made)}.tar")
            tar.write_bytes(whole.read_bytes())
            with tarfile.open(tar, "a") as archive:
                for path, target in links.items():
                    link = tarfile.TarInfo(path.lstrip("/"))
                    link.type, link.linkname = tarfile.SYMTYPE, target
                    archive.addfile(link)
        change = ["--change", f"VOLUME {json.dumps(declared)}"] if declared else []
        made[tag] = docker("import", *change, str(tar), tag).strip()
        return tag

    yield make

    def is_gone() -> bool:
        """Once the last container of it has gone; until then the engine keeps it without a name."""
        subprocess.run(["docker", "rmi", "-f", *made.values()], capture_output=True, check=False)
        return not set(made.values()) & set(docker("images", "-aq", "--no-trunc").split())

    eventually(is_gone, 60, 1)


def workload_of(image: str, **more):
    return {"image": image, "command": RUN, "ports": [], **more}


@pytest.mark.any_database
def test_a_volume_of_the_image_is_bounded_memory_that_no_other_tenant_sees(stack, pools, sink_server, image):
    """It is the container's own, of tmpfsMb, never on the node's disk, and empty for the next tenant (P3)."""
    before = volumes_of_the_engine()
    resources = {"memoryMb": 64, "tmpfsMb": 8, "pidsLimit": 64, "diskMb": 32}
    pool = pools(
        sink=sink_server.json(STATE),
        maxSize=2,
        workload=workload_of(image("/data", "/srv/cache/"), resources=resources),
    )
    (idle,) = stack.containers(pool)
    assert volumes_of_the_engine() == before, "not even while it is warm"
    first = stack.claim("mallory", pool)
    inside = first["containerId"]
    assert inside == idle["id"]
    uid = stack.exec(inside, "id -u").strip()
    for path in ("/data", "/srv/cache"):
        assert stack.exec(inside, f"stat -c %u:%g {path}").strip() == f"{uid}:{uid}"
        (line,) = stack.exec(inside, f"grep ' {path} ' /proc/mounts").splitlines()
        assert line.startswith("tmpfs ")
        assert {"nosuid", "nodev", "noexec", "size=8192k", "mode=700", f"uid={uid}"} <= set(line.split()[3].split(","))
    said = stack.exec(inside, "dd if=/dev/zero of=/data/big bs=1M count=100 2>&1; stat -c %s /data/big", check=False)
    assert "No space left on device" in said
    assert int(said.split()[-1]) <= 8 << 20
    stack.exec(inside, "rm /data/big; echo PRIVATE > /data/diary; echo kept > /state/x")
    mounts = json.loads(docker("inspect", "-f", "{{json .Mounts}}", lifecycle.runtime_name(inside)))
    assert {one["Type"] for one in mounts} == {"bind"}
    assert volumes_of_the_engine() == before
    stack.release("mallory")
    assert volumes_of_the_engine() == before

    second = stack.claim("bob", pool)
    everywhere = "/data /srv /state /comm /extra /run /tmp /var /home /dev/shm"
    assert stack.exec(second["containerId"], "ls -A /data /srv/cache") == "/data:\n\n/srv/cache:\n"
    assert stack.exec(second["containerId"], f"grep -r PRIVATE {everywhere} 2>/dev/null", check=False) == ""
    again = stack.claim("mallory", pool)
    assert stack.exec(again["containerId"], "cat /state/x; ls -A /data") == "kept\n"


@pytest.mark.any_database
def test_it_is_said_when_the_workload_is_saved_and_when_its_pool_starts(stack, pools, image, tmp_path):
    """In the answers, in the pool's status, by one event for each version, and by apply."""
    first, second = image("/data"), image("/data", "/more", "/state")
    pool = pools(workload=workload_of(first), maxSize=1)
    (warning,) = stack.ok("GET", f"workloads/{pool}")["warnings"]
    assert (warning["code"], warning["pointer"]) == ("image_volume", "/image")
    assert "VOLUME /data" in warning["detail"]
    assert stack.pool_status(pool)["warnings"] == [warning]
    (event,) = stack.events("pool.warning", poolId=pool)
    assert (event["payload"]["code"], event["payload"]["version"], event["payload"]["paths"]) == (
        "image_volume",
        1,
        ["/data"],
    )
    assert warning["detail"] in event["payload"]["detail"]

    changed = stack.put_workload(pool, image=second)
    assert ["/data" in changed["warnings"][0]["detail"], "/more" in changed["warnings"][1]["detail"]] == [True, True]
    assert len(changed["warnings"]) == 2, "/state has a volume of the workload"
    eventually(lambda: [one["workloadVersion"] for one in stack.containers(pool)] == [2], 60)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 1}, 202)
    assert [one["payload"]["version"] for one in stack.events("pool.warning", poolId=pool)] == [2, 1]

    custom = [{"name": "data", "containerPath": "/data"}, {"name": "more", "containerPath": "/more"}]
    volumes = {"state": {"containerPath": "/state"}, "custom": custom}
    body = {"kind": "Workload", "id": f"{pool}-b", "name": "b", **workload_of(second)}
    file = tmp_path / "w.yaml"
    for more, expected in (({}, ["/data", "/more", "/state"]), ({"volumes": volumes}, [])):
        file.write_text(json.dumps({**body, **more}))
        done = manage("apply", str(file), "--dry-run", "--output", "json")
        (document,) = json.loads(done.stdout)["documents"]
        assert [one["detail"].split(",")[0].split()[-1] for one in document["warnings"]] == expected
    covered = stack.put_workload(pool, volumes=volumes)
    assert covered["warnings"] == []
    eventually(lambda: stack.pool_status(pool)["warnings"] == [], 60)


@pytest.mark.any_database
def test_a_volume_of_the_image_that_would_lie_over_ours_or_around_it_is_refused(stack, image):
    """Files written there would not be saved; reported at once where the image is here, else by the pool."""
    tag = image("/state/db", "/var/lib")
    volumes = {"state": {"containerPath": "/state"}, "custom": [{"name": "x", "containerPath": "/var/lib/x"}]}
    body = {"id": "over", "name": "over", **workload_of(tag), "pullPolicy": "never", "volumes": volumes}
    found = stack.problem("POST", "workloads", body, 422, "invalid")
    assert {(one["pointer"], one["code"]) for one in found["errors"]} == {
        ("/volumes/state/containerPath", "image_volume"), ("/volumes/custom/0/containerPath", "image_volume"),
    }  # fmt: skip
    # An image that comes to this name later
    docker("tag", "boilerhouse/example-workload:1", "test-image-volumes:late")
    before = volumes_of_the_engine()
    try:
        stack.ok("POST", "workloads", {**body, "image": "test-image-volumes:late"}, 201)
        docker("tag", tag, "test-image-volumes:late")
        stack.ok("POST", "pools", {"id": "over", "workloadId": "over", "minSize": 1, "maxSize": 1}, 201)
        eventually(lambda: "VOLUME /state/db" in (stack.pool_status("over")["lastError"] or ""), 60)
        assert stack.pool_status("over")["state"] == "error"
        assert volumes_of_the_engine() == before
        docker("tag", "boilerhouse/example-workload:1", "test-image-volumes:late")
        eventually(lambda: stack.pool_status("over")["idle"] == 1, 90)
    finally:
        stack.drop_pool("over")
        docker("rmi", "-f", "test-image-volumes:late")


@pytest.mark.any_database
def test_odd_volumes_of_a_hostile_image_make_no_volume_of_the_engines(stack, pools, image):
    """However they are written, nested or many; those that cannot be mounted are refused with a reason."""
    before = volumes_of_the_engine()
    odd = [
        "/data/",
        "//two",
        "/a/./b/../c",
        "/with space",
        "/col:on",
        "/com,ma",
        "/n",
        "/n/e",
        "/n/e/s/t",
        "/tmp",
        "/tmp/x",
    ]
    pool = pools(workload=workload_of(image(*odd)), maxSize=1)
    inside = stack.claim("odd", pool)["containerId"]
    assert volumes_of_the_engine() == before
    for path in ("/data", "/two", "/a/c", "/with space", "/col:on", "/com,ma", "/n", "/n/e", "/n/e/s/t", "/tmp/x"):
        stack.exec(
            inside,
            f"echo x > '{path}/file'; ! dd if=/dev/zero of='{path}/big' bs=1M count=30 2>/dev/null; rm '{path}/big'",
        )
    assert stack.exec(inside, "stat -c %a /tmp").strip() == "1777"
    for declared in (["/"], ["/proc"], ["/proc/x"], ["/dev/shm"], ["/etc"], ["/etc/hosts"], ["data"], ["/a\nb"],
                     ["/sbin/docker-init"], ["/" + "a" * 500], [f"/v{n}" for n in range(51)]):  # fmt: skip
        body = {"name": "refused", **workload_of(image(*declared)), "pullPolicy": "never"}
        found = stack.problem("POST", "workloads", body, 422, "invalid")
        assert [(one["pointer"], one["code"]) for one in found["errors"]] == [("/image", "image_volume")], declared
    assert volumes_of_the_engine() == before


@pytest.mark.any_database
def test_looking_whether_the_engine_sees_a_directory_leaves_no_volume_either(stack, image, tmp_path):
    """That asks by a container of whichever image is there, and by another where none can be made of the newest."""
    image("/data", "/more")
    time.sleep(1.1)  # the engine sorts images by the second
    image("/" + "a" * 500)
    before = volumes_of_the_engine()
    assert get_runtime().sees(str(tmp_path), {"boilerhouse.probe": "tests"})
    assert volumes_of_the_engine() == before


LINKED = [
    # links of the image, paths of volumes, whether state would be lost: TMPFS_LAST if the engine mounts in that order
    ({"/data": "/tmp"}, {"state": "/data"}, "TMPFS_LAST"),
    ({"/data": "/tmp/inside"}, {"state": "/data"}, "TMPFS_LAST"),
    ({"/var/run": "/run"}, {"state": "/run/a", "secrets": "/var/run/a/secrets"}, True),
    ({"/var/run": "/run"}, {"state": "/var/run/a", "secrets": "/run/secrets"}, False),
]


@pytest.fixture(scope="module")
def is_tmpfs_last(image, tmp_path_factory) -> bool:
    """Whether this engine mounts a tmpfs over the volume that a link leads there. Docker 20.10 does, 26.1 and 28.5 do not."""
    seen = tmp_path_factory.mktemp("order")
    mounts = ["--mount", f"type=bind,source={seen},target=/data", "--tmpfs", "/tmp"]
    docker("run", "--rm", "--network", "none", *mounts, image(links={"/data": "/tmp"}), "sh", "-c", "echo > /data/x")
    is_last = not (seen / "x").exists()
    version = docker("version", "--format", "{{.Server.Version}}")
    assert is_last or not version.startswith("20.10."), "what Docker 20.10 is known to do"
    return is_last


@pytest.mark.any_database
@pytest.mark.parametrize(("links", "paths", "is_lost"), LINKED)
def test_a_link_of_the_image_that_leads_a_volume_elsewhere(stack, image, is_tmpfs_last, links, paths, is_lost):
    """Conflicts that the paths do not show are detected in the running container, before a tenant gets it."""
    tag = image(links=links)
    volumes = {name: {"containerPath": path} for name, path in paths.items()}
    name = f"linked-{LINKED.index((links, paths, is_lost))}"
    stack.ok(
        "POST",
        "workloads",
        {"id": name, "name": name, **workload_of(tag), "pullPolicy": "never", "volumes": volumes},
        201,
    )
    stack.ok("POST", "pools", {"id": name, "workloadId": name, "minSize": 1, "maxSize": 1}, 201)
    try:
        if is_tmpfs_last if is_lost == "TMPFS_LAST" else is_lost:
            said = eventually(lambda: stack.pool_status(name)["lastError"], 60)
            assert said.startswith("Because of a link in the image, the volume")
        else:
            stack.wait_warm(name)
            inside = stack.claim(name, name)["containerId"]
            stack.exec(inside, f"echo kept > {paths['state']}/x")
            assert (volumes_module.volume_path(UUID(inside), "state") / "x").read_text() == "kept\n"
            stack.release(name)
    finally:
        stack.drop_pool(name)


@pytest.mark.any_database
def test_what_a_tenant_leaves_there_counts_as_its_memory_and_ends_with_it(stack, pools, image):
    """Also what it holds open, has unlinked, or lets a process in the background keep; and never more than memoryMb
    (P3)."""
    resources = {"memoryMb": 32, "tmpfsMb": 64, "pidsLimit": 64}
    pool = pools(workload=workload_of(image("/data", "/more"), resources=resources), warm=2, maxSize=3)
    neighbour = stack.claim("nell", pool)["containerId"]
    hostile = stack.claim("mallory", pool)["containerId"]
    stack.exec(hostile, "echo SECRET > /data/a; (exec 9< /data/a; rm /data/a; exec sleep 600) > /dev/null 2>&1 &")
    stack.exec(
        hostile, "mkfifo /data/pipe; ln -s /state /data/link; echo SECRET > /more/b; chmod 000 /more/b; chmod 000 /more"
    )
    assert stack.exec(neighbour, "ls -A /data /more") == "/data:\n\n/more:\n"
    script = "for n in 1 2 3 4 5 6; do dd if=/dev/zero of=/data/$n bs=1M count=10 || exit 1; done"
    answer = stack.call("POST", f"containers/{hostile}/exec", {"command": ["sh", "-c", script]})
    assert answer.status_code != 200 or answer.json()["exitCode"] != 0, "60 MB in 32 MB of memory"
    assert stack.exec(neighbour, "echo alive") == "alive\n"
    stack.call("POST", "tenants/mallory/release", {"discard": True})
    eventually(lambda: not stack.status("mallory")["assigned"], 60)
    for tenant in ("mallory", "bob"):
        inside = stack.claim(tenant, pool)["containerId"]
        assert stack.exec(
            inside, "ls -A /data /more; grep -rs SECRET /data /more /state /tmp /dev/shm", check=False
        ) == ("/data:\n\n/more:\n")
        stack.release(tenant)
