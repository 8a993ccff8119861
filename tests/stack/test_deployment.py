"""The deployment files in use: each process with its own restricted Docker socket, the documented commands, the
image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import docker
from boilerhouse.operations.supervisor import free_port
from tests import docker_proxy
from tests.node import code_blocks
from tests.stack.conftest import ROOT, Stack, eventually, is_ready

STATE = "t/${tenantId}/"


@pytest.mark.long
@pytest.mark.any_database
def test_each_process_needs_no_more_of_docker_than_its_socket_lets_through(machine, tmp_path, sink_server):
    """All requests of the product to the engine in normal operation."""
    with docker_proxy.running(tmp_path / "sockets", machine.data) as sockets:
        _works_through(sockets, machine, sink_server)


def _works_through(sockets, machine, sink_server):
    machine.manage("migrate", "-v", "0")
    key = machine.manage("create_api_key", "--name", "k", "--role", "admin").strip()
    port = free_port()
    started = []
    try:
        for command, name in (
            (["run_web", "--port", str(port)], "web"), (["run_worker"], "worker"), (["run_controller"], "worker"),
        ):  # fmt: skip
            environment = {**machine.environment, "DOCKER_HOST": sockets.url(name)}
            with machine.log.open("ab") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, str(ROOT / "manage.py"), *command], env=environment, stdout=log, stderr=log
                    )
                )
        served = Stack(f"http://127.0.0.1:{port}", key, started[0], machine.log)

        eventually(lambda: is_ready(f"http://127.0.0.1:{port}"), 60, 0.3)
        pool = served.make_pool(sink=sink_server.json(STATE), warm=2, maxSize=3)
        for _ in range(2):
            claimed = served.claim("ana", pool, secrets={"T": "x"})
            container = claimed["containerId"]
            served.exec(container, "date >> /state/log; echo said >&2")
            fed = {"command": ["sh", "-c", "cat; sleep 0.1; echo end"], "stdin": "input\n"}
            done = served.ok("POST", f"containers/{container}/exec", fed)
            assert done["stdout"] == "input\nend\n", "a half-closed stream goes through the proxy"
            slow = {"command": ["sleep", "60"], "timeoutMs": 500}
            assert served.call("POST", f"containers/{container}/exec", slow).status_code == 504
            assert served.call("GET", f"containers/{container}/logs?tail=5").status_code == 200
            served.release("ana")
        assert served.exec(served.claim("ana", pool)["containerId"], "wc -l < /state/log") == "2\n"
        served.release("ana")
        served.ok("POST", f"pools/{pool}/scale", {"targetSize": 3}, 202)
        served.wait_warm(pool, 3)
        assert served.call("GET", "health/ready").json()["checks"]["engine"] == "ok"
        served.drop_pool(pool)
        eventually(lambda: served.call("GET", f"pools/{pool}").status_code == 404, 60)
        log = machine.log.read_text()
        assert "proxy denied this call" not in log
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(25)


@pytest.mark.any_database
def test_the_narrow_socket_lets_nothing_be_made_or_removed_and_the_other_nothing_of_others(stack, pools, tmp_path):
    with docker_proxy.running(tmp_path, tmp_path) as sockets:
        _refuses(sockets, stack, pools)


def _refuses(sockets, stack, pools):
    pool = pools()
    (container,) = stack.containers(pool)
    name = f"bh-{container['id']}"
    web = docker.APIClient(base_url=sockets.url("web"), version="auto")
    worker = docker.APIClient(base_url=sockets.url("worker"), version="auto")
    assert web.inspect_container(name)["State"]["Running"]
    for act in (
        lambda: web.create_container("boilerhouse/example-workload:1", "true"),
        lambda: web.remove_container(name, force=True),
        lambda: web.stop(name),
        lambda: web.get_archive(name, "/"),
        lambda: web.commit(name),
        lambda: web.prune_containers(),
        lambda: web.put_archive(name, "/", b""),
        lambda: worker.get_archive(name, "/"),
        lambda: worker.commit(name),
        lambda: worker.prune_containers(),
        lambda: worker.remove_image("boilerhouse/example-workload:1"),
        lambda: worker.remove_container("somebody-elses", force=True),
        lambda: worker.remove_network("bridge"),
        lambda: worker.create_volume("v"),
    ):
        with pytest.raises(docker.errors.APIError) as refused:
            act()
        assert refused.value.status_code == 403
    assert web.inspect_container(name)["State"]["Running"]


@pytest.mark.long
@pytest.mark.any_database
def test_the_first_claim_of_the_readme_works_as_it_is_written(machine, tmp_path):
    """In a shell, line by line; only the port and the data directory are the test's."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## A first claim of your own")[2].partition("\n## ")[0]
    start, *rest = code_blocks(section)
    shell = [block for block in rest if "boilerhouse_client" not in block]
    (python,) = [block for block in rest if "boilerhouse_client" in block]
    assert "manage.py up --s3" in start
    port = free_port()
    machine.data.mkdir(mode=0o700)
    machine.environment["BOILERHOUSE_ALLOWED_HOSTS"] = "127.0.0.1"
    with machine.log.open("ab") as log:
        machine.up = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--s3", "--port", str(port)],
            env=machine.environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    eventually(lambda: is_ready(f"http://127.0.0.1:{port}"), 60, 0.3)
    script = "\n".join(["set -eu", *shell, "echo key=$KEY"])
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(".boilerhouse/", f"{machine.data}/")
    script = re.sub(r"^(api POST tenants/alice/claim)", r"sleep 4\n\1", script, count=1, flags=re.M)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=machine.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"source":"warm"' in done.stdout.replace(" ", ""), done.stdout
    # PostgreSQL keeps no order of keys.
    assert re.search(r'"restored":\{[^}]*"files":1\b', done.stdout.replace(" ", "")), "the second claim finds its state"
    assert "problem" not in done.stdout, done.stdout
    key = re.search(r"^key=(\S+)$", done.stdout, flags=re.M)
    assert key
    program = python.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{port}")
    ran = subprocess.run(
        [sys.executable, "-c", f"key = {key[1]!r}\n{program}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.long
@pytest.mark.any_database
def test_the_guide_makes_a_workload_of_ones_own_as_it_is_written(machine):
    guide = (ROOT / "docs" / "workloads.md").read_text().partition("## In five minutes")[2].partition("\n## ")[0]
    image, document, commands = code_blocks(guide)
    machine.start()
    done = subprocess.run(
        ["bash", "-c", f"set -eu\n{image}\n{document}\ncd {ROOT}\n{commands}"],
        cwd=ROOT, env=machine.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr
        assert "1 visits" in done.stdout, done.stdout
    finally:
        machine.manage("release", "alice")
        machine.lose()
        subprocess.run(["docker", "rmi", "-f", "counter:1"], capture_output=True, check=False)
        shutil.rmtree("/tmp/counter", ignore_errors=True)


@pytest.mark.long
@pytest.mark.any_database
def test_the_image_builds_on_a_local_base_and_runs_its_commands(tmp_path):
    """No registry is reached: the base is made by debootstrap, packages come from where this machine gets them."""
    if not shutil.which("debootstrap"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"], check=True)
    root = tmp_path / "root"
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv", "bookworm", str(root)],
        check=True, capture_output=True, timeout=400,
    )  # fmt: skip
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    trusted = root / "usr" / "local" / "share" / "ca-certificates"
    for number, one in enumerate(re.findall(r"-----BEGIN.*?END CERTIFICATE-----\n", bundle, flags=re.S)):
        (trusted / f"{number}.crt").write_text(one)
    for path in ("/etc/apt/sources.list", "/etc/pip.conf"):
        if Path(path).exists():
            shutil.copy(path, root / path[1:])
    for directory in ("/etc/apt/sources.list.d", "/usr/share/keyrings"):
        if Path(directory).is_dir():
            shutil.copytree(directory, root / directory[1:], dirs_exist_ok=True)
    tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        ["docker", "import", "-", "boilerhouse-base:test"], stdin=tar.stdout, check=True, capture_output=True
    )
    tar.wait()
    try:
        built = subprocess.run(
            ["docker", "build", "--network", "host", "--build-arg", "BASE=boilerhouse-base:test",
             "--build-arg", "PIP_OPTIONS=--cert /etc/ssl/certs/ca-certificates.crt", "-t", "boilerhouse:test", "."],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=580,
        )  # fmt: skip
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-2000:]
        run = ["docker", "run", "--rm", "--network", "none", "-e", "BOILERHOUSE_DATA_DIR=/tmp/b", "boilerhouse:test"]
        for arguments, expected in (
            (["check"], "no issues"),
            (["help", "run_web"], "--fd"),
            (["migrate", "-v", "0"], ""),
        ):
            done = subprocess.run([*run, *arguments], capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout + done.stderr
    finally:
        subprocess.run(
            ["docker", "rmi", "-f", "boilerhouse:test", "boilerhouse-base:test"], capture_output=True, check=False
        )
