"""A machine to install on: Debian 12 with systemd and its own Docker engine, in a container."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.stack.conftest import Stack
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[1]
NAME = "boilerhouse.example.com"
BASE = "boilerhouse-examples/debian:12"
IMAGE = "boilerhouse-tests/node:1"
DOCKERFILE = """
FROM {base}
ENV DEBIAN_FRONTEND=noninteractive UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1
RUN rm -f /usr/sbin/policy-rc.d && echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/yes \\
 && apt-get update && apt-get install --no-install-recommends systemd systemd-sysv dbus curl procps \\
 && systemctl mask systemd-udevd.service systemd-modules-load.service console-getty.service getty@tty1.service
RUN {install}
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""
AS_A_MACHINE = [
    # All but SYS_RESOURCE: a machine that is a container itself often lacks that, and cannot hand it on.
    "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined", "--device-cgroup-rule=a *:* rwm", "--cgroupns=host",
    "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec", "-e=container=docker",
]  # fmt: skip
CGROUPS = Path("/sys/fs/cgroup")
S3_AT = "127.0.0.1:9100"
S3_KEYS = ("AKIDOFNODE", "secret-of-the-node")


def docker(*arguments: str, timeout: float = 120, **options: Any) -> str:
    """What a command of the engine prints; it must succeed."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=timeout, **options
    )
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def cgroups() -> list[str]:
    """Options that give a machine this host's cgroups, and no way to make others.

    systemd mounts each hierarchy of cgroup v1 that is not there. Such a one stays in the kernel after the machine, and
    while it does, containerd tells of no container that it ran out of memory.
    """
    mounted = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    here = [str(one) for one in mounted if one.parent == CGROUPS]
    if not here:  # v2
        return [f"-v={CGROUPS}:{CGROUPS}"]
    rows = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()[1:]]
    missing = {row[0] for row in rows if row[1] == "0"}
    names = {"net_cls,net_prio" if one in ("net_cls", "net_prio") else one for one in missing}  # as systemd joins them
    stand_ins = [f"--tmpfs={CGROUPS / one}" for one in sorted(names)]
    return [f"--tmpfs={CGROUPS}", *(f"-v={one}:{one}" for one in here), *stand_ins]


def build_image(install: str) -> None:
    """Build the machine's image: Debian, systemd, and the packages of ``install``, a line of a guide."""
    text = DOCKERFILE.format(base=BASE, install=install)
    with replacing(IMAGE):
        docker("build", "--network", "host", "-q", "-t", IMAGE, "-", input=text, timeout=1200)


@contextmanager
def replacing(tag: str) -> Iterator[None]:
    """An image that had the tag before and has no name after is gone."""
    before = docker("images", "-q", "--no-trunc", tag).split()
    yield
    if before and before != docker("images", "-q", "--no-trunc", tag).split():
        subprocess.run(["docker", "rmi", *before], capture_output=True, check=False, timeout=120)  # unless it is used


class Node:
    """A running machine of that image; its data and its engine's are gone when it is."""

    def __init__(self) -> None:
        self.name = f"bh-node-{uuid.uuid4().hex[:8]}"
        docker(
            "run", "-d", "--name", self.name, "--hostname", "node", f"--add-host={NAME}:127.0.0.1", *AS_A_MACHINE, *cgroups(),
            "-v=/var/lib/docker", "-v=/var/lib/boilerhouse", IMAGE,
        )  # fmt: skip
        eventually(lambda: self.tried("systemctl is-system-running").stdout.strip() == "running", 60, 0.5)
        eventually(lambda: self.tried("docker version").returncode == 0, 60, 0.5)

    def tried(self, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A script of bash, as root in root's directory."""
        command = ["docker", "exec", "-i", "-w", "/root", self.name, "bash", "-eu"]
        return subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=timeout)

    def run(self, script: str, timeout: float = 120) -> str:
        """What such a script prints; it must succeed."""
        done = self.tried(script, timeout)
        assert done.returncode == 0, f"{script[:300]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def take_checkout(self) -> None:
        """This checkout's files are in /opt/boilerhouse, as ``git clone`` would lay them."""
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        packed = subprocess.run(
            ["tar", "-c", "--null", "--ignore-failed-read", "-T", "-"], cwd=ROOT, input=files, capture_output=True, check=True
        ).stdout  # fmt: skip
        unpack = "mkdir -p /opt/boilerhouse && tar -x --no-same-owner -C /opt/boilerhouse"
        command = ["docker", "exec", "-i", self.name, "sh", "-c", unpack]
        subprocess.run(command, input=packed, check=True, capture_output=True)

    def take_image(self, *names: str) -> None:
        """Its engine has these images of this machine's."""
        saved = subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE)
        command = ["docker", "exec", "-i", self.name, "docker", "load", "-q"]
        subprocess.run(command, stdin=saved.stdout, check=True, capture_output=True, timeout=300)
        assert saved.wait() == 0

    def serve_s3(self, rclone: str) -> dict[str, Any]:
        """Start an S3 server there; returns a sink on it."""
        keys = ",".join(S3_KEYS)
        self.run(
            f"mkdir -p /srv/s3/bucket && systemd-run -q --unit node-s3 -E RCLONE_CONFIG=/dev/null -E 'RCLONE_AUTH_KEY=\"{keys}\"' "
            f"{rclone} serve s3 --addr {S3_AT} --dir-cache-time 1s /srv/s3"
        )
        return {
            "type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/", "provider": "Rclone",
            "endpoint": f"http://{S3_AT}", "accessKeyId": S3_KEYS[0], "secretAccessKey": S3_KEYS[1],
        }  # fmt: skip

    def remove(self) -> None:
        subprocess.run(["docker", "rm", "-f", "-v", self.name], capture_output=True, check=False, timeout=120)


class Inside(Stack):
    """The deployment on a node, asked by curl on that node."""

    def __init__(self, node: Node, base: str, key: str) -> None:
        self.node, self.base, self.key = node, base, key

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120, **options: Any) -> requests.Response:
        assert not options, "what no test asks for so far"
        config = [f'url = "{self.base}/api/v1/{path}"', f'header = "Authorization: Bearer {self.key}"']
        script = ["cat >config <<'END'\n" + "\n".join(config) + "\nEND"]
        arguments = f"-sS -g -X {method} -K config -w '\\n%{{http_code}}' -m {timeout:g}"
        if body is not None:
            script.append(f"cat >body <<'END'\n{json.dumps(body)}\nEND")
            arguments += " -H 'Content-Type: application/json' --data-binary @body"
        said = self.node.tried(
            "\n".join([*script, f"curl {arguments}"]), timeout + 30
        ).stdout  # 000 where nobody answers
        answer = requests.Response()
        content, _, status = said.rpartition("\n")
        answer.status_code, answer._content = int(status), content.encode()
        return answer


def code_blocks(text: str) -> list[str]:
    """Indented blocks of a Markdown page, in order."""
    found, block = [], list[str]()
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line[4:])
        elif block:
            found.append("\n".join(block))
            block = []
    return found


def guide(section: str) -> list[str]:
    """The commands of a section of docs/deployment.md, one string per block."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, section
    return [block.strip() for block in code_blocks(re.split(r"\n##+ ", rest)[0])]
