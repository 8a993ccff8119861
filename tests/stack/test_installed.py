"""The two documented installations, systemd and compose, each on a fresh machine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from pools import images
from tests.node import BASE, NAME, ROOT, S3_AT, Inside, Node, build_image, docker, guide, replacing
from tests.stack.conftest import eventually

pytestmark = [
    pytest.mark.long,  # a Debian with systemd, PostgreSQL and an engine is made from packages, and two images: minutes
    pytest.mark.any_database,
]
OURS, POSTGRES = "boilerhouse-tests/boilerhouse:1", "boilerhouse-tests/postgres:15"
CERTIFICATE = f"""
mkdir -p /etc/ssl/boilerhouse && cd /etc/ssl/boilerhouse
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout privkey.pem -out fullchain.pem -subj /CN={NAME} \
  -addext subjectAltName=DNS:{NAME} 2>/dev/null
cp fullchain.pem /usr/local/share/ca-certificates/boilerhouse.crt && update-ca-certificates >/dev/null 2>&1
"""
WORK = "cat /run/secrets/T; echo x >> /state/n; wc -l < /state/n"
FILES = 65536
"""What the guide has compose ask for; a machine that is a container may have fewer, and not raise it."""
SINKS = f"BOILERHOUSE_ALLOWED_SINK_HOSTS={S3_AT}"  # there the sink of these tests is, on the node's own loopback
SYSTEMD, COMPOSE = "On a bare host, with systemd", "With compose"


@pytest.fixture(scope="module", autouse=True)
def node_image() -> None:
    """The image of the machines, with the packages of the guide's first line."""
    images.ensure_example()
    subprocess.run([ROOT / "examples" / "build.sh", "postgresql"], check=True, capture_output=True, timeout=1200)
    install = guide(SYSTEMD)[0].splitlines()[0]
    assert install.startswith("apt-get install ")
    build_image(install)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.remove()


def healthy(node: Node, doctor: str) -> bool:
    """Whether doctor finds no failure; its findings are printed."""
    done = node.tried(f"{doctor} --output json")
    wrong = [one for one in json.loads(done.stdout)["findings"] if one["state"] == "failure"]
    print(wrong, done.stderr)
    return not wrong


def works(node: Node, served: Inside, rclone: str) -> str:
    """A pool starts, a tenant works twice with a secret and finds its state; returns the container's id."""
    pool = served.make_pool(sink=node.serve_s3(rclone), warm=2, maxSize=3)
    for turn in ("1", "2"):
        claimed = served.claim("ana", pool, secrets={"T": "x"})
        assert served.exec(claimed["containerId"], WORK) == f"x{turn}\n"
        served.release("ana")
    return str(served.claim("ana", pool)["containerId"])


def test_the_guide_for_systemd_installs_what_works_as_it_is_written(node):
    """The units, their settings and nginx's example as they lie in deploy/; only the name's certificate is ours."""
    install, start, doctor = guide(SYSTEMD)[:3]
    (restart,) = guide(SYSTEMD)[3:]
    node.take_checkout()
    node.take_image(images.EXAMPLE_IMAGE)
    without_clone = install.replace("git clone … /opt/boilerhouse && ", "")
    assert without_clone != install
    node.run(without_clone, timeout=600)
    node.run(f"{CERTIFICATE}\necho {SINKS} >> /etc/boilerhouse/boilerhouse.env")
    said = node.run(f"cd /opt/boilerhouse\n{start}")
    units = "boilerhouse-web@1.socket boilerhouse-web@1.service boilerhouse-worker@1.service boilerhouse-controller@1.service"
    verified = node.tried(f"systemd-analyze verify --man=no {units} boilerhouse.target")
    assert verified.returncode == 0, verified.stderr
    assert "boilerhouse" not in verified.stderr

    served = Inside(node, f"https://{NAME}", said.split()[-1])
    asked = f"cd /opt/boilerhouse\nset -a; . /etc/boilerhouse/boilerhouse.env; set +a\n{doctor}"
    try:
        eventually(lambda: healthy(node, asked), 60, 2)
        assert served.call("GET", "health/ready").status_code == 200, "through nginx, by its name, over TLS"
        for port in (8001, 8002):
            node.run(f"curl -sf 127.0.0.1:{port}/api/v1/health")
        container = works(node, served, "/opt/boilerhouse/.venv/bin/rclone")
        node.run(restart, timeout=300)
        eventually(lambda: served.call("GET", "health/ready").status_code == 200, 60, 1)
        assert served.exec(container, "wc -l < /state/n") == "2\n", "who held a container holds it"
        served.release("ana")
        assert healthy(node, asked)
        failed = node.run("systemctl list-units --failed --no-legend 'boilerhouse*'")
        assert failed == ""
    except BaseException:
        print(node.tried("journalctl -u 'boilerhouse*' -u nginx --no-pager -o cat | tail -60").stdout)
        raise


def test_the_guide_for_compose_starts_what_works_as_it_is_written(node):
    """The real compose with the real file, `.env` from its example; PostgreSQL is of Debian's packages."""
    copy, up, doctor, key = [line.partition(" # ")[0].strip() for line in guide(COMPOSE)[0].splitlines()]
    (build,) = re.findall(r"`(docker build --build-arg BASE=… \.)`", (ROOT / "docs" / "deployment.md").read_text())
    command = [*build.replace("…", BASE).split(), "--network", "host", "-q", "-t", OURS]
    with replacing(OURS):
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    with replacing(POSTGRES):
        docker("build", "-q", "-t", POSTGRES, "tests/images/postgres", cwd=ROOT)
    plugin = subprocess.run([ROOT / "scripts" / "compose-plugin.sh"], check=True, capture_output=True, text=True)
    node.run("mkdir -p /usr/local/lib/docker/cli-plugins; systemctl stop postgresql nginx")
    docker("cp", "-L", plugin.stdout.strip(), f"{node.name}:/usr/local/lib/docker/cli-plugins/docker-compose")
    node.take_checkout()
    node.take_image(images.EXAMPLE_IMAGE, OURS, POSTGRES)
    node.run(f"docker tag {OURS} boilerhouse; docker tag {POSTGRES} postgres:15")  # there alone, not on this machine

    there = "cd /opt/boilerhouse"
    files = min(FILES, int(node.run("ulimit -Hn").replace("unlimited", str(FILES))))
    settings = f"printf '%s\\n' {SINKS} BOILERHOUSE_OPEN_FILES={files} >> .env"
    node.run(f"{there}\n{copy}\nchmod 600 .env\nsed -i 's/^POSTGRES_PASSWORD=$/&of-the-database/' .env\n{settings}")
    try:
        node.run(f"{there}\n{up}", timeout=300)
        served = Inside(node, "http://127.0.0.1:8000", node.run(f"{there}\n{key} </dev/null").split()[-1])
        eventually(lambda: healthy(node, f"{there}\n</dev/null {doctor}"), 60, 2)
        shown = f"{there}\ndocker compose ps --format '{{{{.Service}}}} {{{{.Health}}}}' web postgres"
        healths = ["postgres healthy", "web healthy"]
        eventually(lambda: sorted(node.run(shown).splitlines()) == healths, 60, 2)
        container = works(node, served, rclone_of(node))
        node.run(f"{there}\ndocker compose restart web worker controller", timeout=180)
        eventually(lambda: served.call("GET", "health/ready").status_code == 200, 60, 1)
        assert served.exec(container, "wc -l < /state/n") == "2\n", "who held a container holds it"
        served.release("ana")
    except BaseException:
        print(node.tried(f"{there}\ndocker compose ps -a; docker compose logs --tail 30").stdout[-12000:])
        raise


def rclone_of(node: Node) -> str:
    """A program on the node: the image's own."""
    node.run(f"docker create --name of-rclone {OURS} >/dev/null; docker cp of-rclone:/opt/boilerhouse/.venv /srv/venv")
    return node.run("ls -d /srv/venv/bin/rclone").strip()
