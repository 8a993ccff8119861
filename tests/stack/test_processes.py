"""How a workload's process runs, in real containers of images built here."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator

import pytest

from pools import lifecycle
from pools.runtime import get_runtime
from tests.docker_command import docker
from tests.stack.conftest import eventually

RUN = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
STATE = "t/${tenantId}/"


def inspected(container_id: str, what: str):
    return json.loads(docker("inspect", "-f", f"{{{{json {what}}}}}", lifecycle.runtime_name(container_id)))


@pytest.fixture(scope="module")
def image(stack) -> Iterator:
    """Make images like the example's: ``image("STOPSIGNAL SIGINT", files={"/init": "#!/bin/sh …"}, dirs={"/a": 0o775})``.

    All is root's, files are executable.
    """
    made = list[str]()

    def make(*lines: str, files: dict[str, str] | None = None, dirs: dict[str, int] | None = None):
        context, tag = io.BytesIO(), f"test-processes:{uuid.uuid4().hex}"
        dockerfile = "\n".join(["FROM boilerhouse/example-workload:1", "COPY root/ /", *lines])
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, mode in {"": 0o755, **(dirs or {})}.items():
                entry = tarfile.TarInfo(f"root{path}")
                entry.type, entry.mode = tarfile.DIRTYPE, mode
                archive.addfile(entry)
            for path, text in {"Dockerfile": dockerfile, **(files or {})}.items():
                entry = tarfile.TarInfo(f"root{path}" if path.startswith("/") else path)
                entry.mode, entry.size = 0o755, len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        list(get_runtime().build(context.getvalue(), tag))
        made.append(tag)
        return tag

    yield make

    def is_gone() -> bool:
        """Once the last container of it has gone; until then the engine keeps it."""
        subprocess.run(["docker", "rmi", *made], capture_output=True, check=False)
        return not docker("images", "-q", "test-processes").strip()

    eventually(is_gone, 60, 1)


def hardened(stack, inside: str) -> None:
    """No new privileges, no capability, and a root that cannot be written."""
    status = dict(
        line.split(":\t", 1) for line in stack.exec(inside, "cat /proc/self/status").splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert {int(status[f"Cap{one}"], 16) for one in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert "Read-only file system" in stack.exec(inside, "touch /x 2>&1", check=False)


S6 = """#!/bin/sh
[ $$ = 1 ] || { echo 's6-overlay-suexec: fatal: can only run as pid 1.'; exit 100; }
trap 'exit 0' TERM
while :; do sleep 0.1; done
"""


@pytest.mark.any_database
def test_the_images_own_process_is_process_1_where_it_is_asked_for(stack, pools, image):
    """An s6-like entrypoint fails below an init with its own error, and runs with ``init: "image"``."""
    s6 = image('ENTRYPOINT ["/init"]', files={"/init": S6})
    pool = pools(workload={"image": s6, "ports": []}, warm=0, maxSize=2)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    said = eventually(lambda: stack.pool_status(pool)["lastError"], 60)
    assert "can only run as pid 1" in said
    assert 'init to "image"' in said
    stack.put_workload(pool, init="image")
    stack.ok("POST", f"pools/{pool}/resume", status=202)
    stack.wait_warm(pool)
    inside = stack.claim("seven", pool)["containerId"]
    assert stack.exec(inside, "tr '\\0' ' ' < /proc/1/cmdline").split() == ["/bin/sh", "/init"]
    assert inspected(inside, ".HostConfig.Init") is False
    hardened(stack, inside)
    stack.put_workload(pool, init=True, entrypoint=[], command=RUN)
    other = eventually(lambda: [one for one in stack.containers(pool) if one["workloadVersion"] == 3], 60)[0]["id"]
    first = docker("exec", lifecycle.runtime_name(other), "cat", "/proc/1/comm").strip()
    assert first == "agent"


@pytest.mark.any_database
def test_an_entrypoint_of_the_image_is_replaced_or_left_out(stack, pools, image):
    """``command`` alone goes to the image's entrypoint as arguments; ``entrypoint`` is another, or none."""
    ran = "for p in /proc/[0-9]*; do grep -q '^PPid:.1$' $p/status && tr '\\0' '|' < $p/cmdline; done; true"
    wrong = image(
        'ENTRYPOINT ["/wrong", "--as", "arguments"]',
        'CMD ["sh", "-c", ":; trap exit TERM; while :; do sleep 0.1; done"]',
    )
    loop = ": $@; trap exit TERM; while :; do sleep 0.1; done"
    cases = [
        ({"entrypoint": ["sh", "-c", loop, "zero"], "command": ["a b", "$c"]}, f"sh|-c|{loop}|zero|a b|$c|"),
        ({"entrypoint": ["sh", "-c", loop]}, f"sh|-c|{loop}|"),
        ({"entrypoint": []}, "sh|-c|:; trap exit TERM; while :; do sleep 0.1; done|"),
    ]
    pool = pools(workload={"image": wrong, "ports": [], **cases[0][0]}, maxSize=2)
    for number, (asked, expected) in enumerate(cases):
        if number:
            stack.put_workload(pool, **{"command": [], **asked})
        is_there = lambda: [one for one in stack.containers(pool) if one["workloadVersion"] == number + 1]  # noqa: B023, E731
        name = lifecycle.runtime_name(eventually(is_there, 60)[0]["id"])
        assert docker("exec", name, "sh", "-c", ran) == expected


@pytest.mark.any_database
def test_a_process_begins_in_the_directory_that_is_asked_for_and_may_write_there(stack, pools, image, sink_server):
    """Also below a volume, where the engine would have made root's directory of it, for an image's WORKDIR too."""
    own = image("WORKDIR /state/home/work")
    workload = {"image": own, "command": ["sh", "-c", "pwd > begun && exec sleep 1000"], "ports": []}
    pool = pools(workload=workload, sink=sink_server.json(STATE), maxSize=2)
    inside = stack.claim("dir", pool)["containerId"]
    uid = stack.exec(inside, "id -u").strip()
    assert stack.exec(inside, "pwd; cat begun; stat -c %u:%g:%a . ..").split() == [
        "/state/home/work", "/state/home/work", *[f"{uid}:{uid}:755"] * 2,
    ]  # fmt: skip
    stack.exec(inside, "echo mine > kept")
    stack.release("dir")
    again = stack.claim("dir", pool)["containerId"]
    assert stack.exec(again, "cat kept; stat -c %u . kept").split() == [
        "mine",
        *[stack.exec(again, "id -u").strip()] * 2,
    ]

    for asked in ("/srv/www", "/extra/below", "/"):
        number = stack.put_workload(pool, workingDir=asked, command=RUN)["version"]
        found = eventually(lambda: [o for o in stack.containers(pool) if o["workloadVersion"] == number], 60)  # noqa: B023
        name = lifecycle.runtime_name(found[0]["id"])
        assert docker("exec", name, "pwd").strip() == asked
        said = docker("exec", name, "sh", "-c", "id -u; stat -c %u .").split()
        assert (said[0] == said[1]) == (asked == "/extra/below")


IMAGES = ("STOPSIGNAL SIGINT",)


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("init", "change", "asked", "expected"),
    [
        ("image", (), None, "TERM"),
        (True, IMAGES, None, "INT"),
        ("image", IMAGES, "SIGQUIT", "QUIT"),
        pytest.param(True, (), None, "TERM", marks=pytest.mark.long),  # every value is tried above
        pytest.param("image", IMAGES, None, "INT", marks=pytest.mark.long),
        pytest.param(True, IMAGES, "SIGQUIT", "QUIT", marks=pytest.mark.long),
    ],
)
def test_a_release_stops_with_the_signal_that_is_asked_for(
    stack, pools, image, sink_server, init, change, asked, expected
):
    """What the process writes when it gets the signal is saved; the image's STOPSIGNAL counts."""
    traps = "; ".join(f"trap 'echo {one} >> /state/signals; exit 0' {one}" for one in ("TERM", "INT", "QUIT"))
    loop = f"{traps}; while :; do sleep 0.1; done"
    workload = {"image": image(*change), "command": ["sh", "-c", loop], "ports": [], "stopTimeoutMs": 20_000,
                "stopSignal": asked, "init": init}  # fmt: skip
    pool = pools(workload=workload, sink=sink_server.json(STATE), maxSize=2)
    stack.claim("stop", pool)
    stack.release("stop")
    again = stack.claim("stop", pool)["containerId"]
    assert stack.exec(again, "cat /state/signals").split() == [expected]


FAILS = """HEALTHCHECK --interval=1s --timeout=2s --retries=2 CMD echo "no /home/jovyan/runtime.json"; exit 1"""
FLIPS = "HEALTHCHECK --interval=500ms --timeout=5s --retries=1 CMD test ! -e /tmp/late || { echo flipped; exit 1; }"


@pytest.mark.any_database
def test_an_images_own_failing_healthcheck_is_named_backs_off_and_can_be_switched_off(stack, pools, image):
    """The pool shows its command and its last output, few containers are created, and null ends it."""
    workload = {"image": image(FAILS), "command": RUN, "ports": [], "healthCheck": "image"}
    pool = pools(workload=workload, warm=0, maxSize=3)
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 2}, 202)
    status = eventually(lambda: (s := stack.pool_status(pool))["lastError"] and s, 60)
    assert (status["trouble"], status["idle"]) == ("start_failed", 0)
    for words in ("The image's own HEALTHCHECK", "exit 1", "no /home/jovyan/runtime.json", "healthCheck to null"):
        assert words in status["lastError"]
    eventually(lambda: len(stack.events("container.failed", poolId=pool)) >= 2, 60)
    assert "HEALTHCHECK" in stack.events("pool.warning", poolId=pool)[0]["payload"]["detail"]
    assert stack.events("container.ready", poolId=pool) == []

    stack.put_workload(pool, healthCheck=None)
    stack.ok("POST", f"pools/{pool}/resume", status=202)
    stack.wait_warm(pool, 2)
    (first, _) = stack.containers(pool)
    assert inspected(first["id"], ".Config.Healthcheck.Test") == ["NONE"]
    assert first["health"] == "unknown"
    assert stack.pool_status(pool)["lastError"] is None


@pytest.mark.long  # three containers in a row become warm, fail later and are waited for: 20 s
def test_an_images_healthcheck_that_fails_later_is_named_and_does_not_churn(stack, pools, image):
    """A tenant's own output is not reported; failing warm containers are replaced ever more slowly, and the pool
    says so."""
    late = ["sh", "-c", "trap 'exit 0' TERM; sleep 2; touch /tmp/late; while :; do sleep 0.1; done"]
    pool = pools(
        workload={"image": image(FLIPS), "command": late, "ports": [], "healthCheck": "image"}, warm=0, maxSize=3
    )
    stack.ok("POST", f"pools/{pool}/scale", {"targetSize": 1}, 202)
    status = eventually(lambda: (s := stack.pool_status(pool))["trouble"] == "unstable" and s, 90)
    for words in ("become warm and then fail", "The image's own HEALTHCHECK", "/tmp/late", "exit code 1: flipped"):
        assert words in status["lastError"]
    made = len(stack.events("container.created", poolId=pool))
    (warning,) = [
        one for one in stack.events("pool.warning", poolId=pool) if one["payload"].get("trouble") == "unstable"
    ]
    assert "HEALTHCHECK" in warning["payload"]["detail"]
    eventually(lambda: len(stack.events("container.unhealthy", poolId=pool)) > made, 60)
    assert len(stack.events("pool.recovered", poolId=pool)) == 0
