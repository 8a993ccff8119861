"""A registry for one test run (Debian's ``docker-registry``) on 127.0.0.1, and a connection to it that is slow or
fails."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import secrets
import select
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from django.conf import settings

import docker
from boilerhouse.operations.supervisor import free_port
from pools import images
from pools.runtime import get_runtime
from tests.listeners import stop_listener

CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
# The engine's own store pushes Docker's manifests, that of containerd OCI's.
MANIFESTS = ", ".join(
    [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    ]
)
USER, PASSWORD = "puller", 'CANARY pass/word+?&="of a registry'
_numbers = itertools.count(1)


def bcrypted(password: str) -> str:
    """As htpasswd -B does."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    salt = b"$2b$05$" + secrets.token_hex(11).encode()
    return str(crypt(password.encode(), salt).decode())


class Registry:
    """``host`` is the address of the registry; images are pushed by its own address, whatever connection pulls use."""

    def __init__(self, directory: Path, htpasswd: str = "") -> None:
        self.directory, self.port = directory, free_port()
        directory.mkdir(parents=True, exist_ok=True)
        auth = ""
        if htpasswd:
            (directory / "htpasswd").write_text(htpasswd)
            auth = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}"
        root = directory / "data"
        (directory / "config.yml").write_text(CONFIG.format(root=root, port=self.port, auth=auth))
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[Line] = []
        self._pushed: set[str] = set()
        """Ids of images: by their manifest with containerd, else by their configuration."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            command = ["docker-registry", "serve", str(self.directory / "config.yml")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://{self.host}/v2/", timeout=2).status_code in (200, 401):
                    return
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        for line in self._lines:
            line.close()
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        """Stop it for good, and have the engine forget all that came from it."""
        hosts = tuple(f"{host}/" for host in (self.host, *(line.host for line in self._lines)))
        self.stop()
        engine, deadline = client(), time.monotonic() + 60
        came = self._pushed | {image["Id"] for host in hosts for image in engine.images(name=f"{host}*")}
        while left := [name for one in engine.images() if one["Id"] in came for name in _names(one, hosts)]:
            assert time.monotonic() < deadline, f"still used: {left}"
            for name in left:
                with contextlib.suppress(docker.errors.APIError):  # the last container of it has not gone yet
                    forget(name)
            time.sleep(0.2)
        engine.close()

    def line(self, **options: Any) -> Line:
        """Another way to it."""
        self._lines.append(Line(self.port, **options))
        return self._lines[-1]

    def put(self, name: str, tag: str = "1", size: int = 0, login: dict[str, str] | None = None) -> str:
        """Push an image that the example workload runs in, with a layer of ``size`` random bytes, and delete it here.

        Returns its digest.
        """
        made = f"boilerhouse-test/{name}-{next(_numbers)}:{os.getpid()}"
        build(made, size)
        try:
            return self.push(made, name, tag, login)
        finally:
            forget(made)

    def push(self, image: str, name: str, tag: str, login: dict[str, str] | None = None) -> str:
        """Push the engine's image by this name, and delete it from the engine. Returns its digest."""
        engine, here = client(), f"{self.host}/{name}"
        engine.tag(image, here, tag)
        told = list(engine.push(here, tag, auth_config=login, stream=True, decode=True))
        engine.remove_image(f"{here}:{tag}")
        engine.close()
        wrong = [line["error"] for line in told if "error" in line]
        assert not wrong, wrong
        found = self.manifest(name, tag, login)
        digest = found.headers["Docker-Content-Digest"]
        self._pushed |= {digest, found.json().get("config", {}).get("digest", digest)}
        return digest

    def manifest(self, name: str, reference: str, login: dict[str, str] | None = None) -> requests.Response:
        """What the registry has by a tag or digest, in the form in which the engine pushed it."""
        found = requests.get(
            f"http://{self.host}/v2/{name}/manifests/{reference}", timeout=5, headers={"Accept": MANIFESTS},
            auth=(login["username"], login["password"]) if login else None,
        )  # fmt: skip
        found.raise_for_status()
        return found

    def put_for_another_platform(self, name: str) -> None:
        """Make ``name:1`` a list of builds that has none for this machine."""
        self.put(name, tag="only")
        address = f"http://{self.host}/v2/{name}/manifests"
        found = self.manifest(name, "only")
        kind, digest = found.headers["Content-Type"], found.headers["Docker-Content-Digest"]
        entry: dict[str, Any] = {"mediaType": kind, "size": len(found.content), "digest": digest}
        entry["platform"] = {"architecture": "s390x", "os": "linux"}
        kind = "application/vnd.docker.distribution.manifest.list.v2+json"
        body = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
        requests.put(f"{address}/1", json=body, headers={"Content-Type": kind}, timeout=5).raise_for_status()

    def lose_layers(self, name: str, digest: str) -> int:
        """Remove the bytes of the image's last layer, as a registry that lost them."""
        blobs = self.directory / "data/docker/registry/v2/blobs/sha256"
        manifest = self.manifest(name, digest).json()
        if "manifests" in manifest:  # an index: what an engine pushes that keeps images in containerd
            manifest = self.manifest(name, manifest["manifests"][0]["digest"]).json()
        lost = manifest["layers"][-1]["digest"].removeprefix("sha256:")
        (blobs / lost[:2] / lost / "data").unlink()
        return int(manifest["layers"][-1]["size"])


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Registry]:
    """A registry that everybody may pull from and push to."""
    found = Registry(directory)
    found.start()
    try:
        yield found
    finally:
        found.close()


def build(tag: str, size: int) -> None:
    """An image of the example workload with a layer of random bytes, which no other image has."""
    runtime = get_runtime()
    images.ensure_example()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        dockerfile = f"FROM {images.EXAMPLE_IMAGE}\nCOPY blob /opt/blob\n".encode()
        for name, content in (("Dockerfile", dockerfile), ("blob", os.urandom(max(size, 16)))):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    for _ in runtime.build(buffer.getvalue(), tag):
        pass


def client() -> docker.APIClient:
    """Of the engine that the tests run on, which may not be the machine's. The caller closes it."""
    return docker.APIClient(base_url=settings.DOCKER_HOST, version="auto")


def forget(image: str) -> None:
    """Take the image away from the engine, where it has it."""
    engine = client()
    with contextlib.suppress(docker.errors.NotFound, docker.errors.ImageNotFound):
        engine.remove_image(image, force=True)
    engine.close()


def _names(image: dict[str, Any], hosts: tuple[str, ...]) -> list[str]:
    """What the engine must forget of an image that came from these: its names of theirs, or itself if it has none."""
    names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
    known = [one for one in names if not one.startswith("<none>")]
    return [one for one in known if one.startswith(hosts)] if known else [str(image["Id"])]


class Line:
    """A way to a port of this machine that may be slow, cut or dead; ``mode`` may change while it is used."""

    CHUNK = 4096

    def __init__(self, port: int, bytes_per_second: int = 0, cut_after: int = 0, is_dead: bool = False) -> None:
        self.to, self.bytes_per_second, self.cut_after, self.is_dead = port, bytes_per_second, cut_after, is_dead
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._is_closed = False
        self.connections = 0
        self.carried = 0
        """Bytes towards whoever asks."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._is_closed = True
        stop_listener(self._listener)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.to)) as far:
            for chunk in self._answers(near, far):
                near.sendall(chunk)
                self.carried += len(chunk)

    def _answers(self, near: socket.socket, far: socket.socket) -> Iterator[bytes]:
        sent = 0
        while not self._is_closed:
            for end in select.select([near, far], [], [], 0.2)[0]:
                while self.is_dead and not self._is_closed:
                    time.sleep(0.05)
                chunk = end.recv(self.CHUNK)
                if not chunk:
                    return
                if end is near:
                    far.sendall(chunk)
                    continue
                sent += len(chunk)
                if self.cut_after and sent > self.cut_after:
                    return
                yield chunk
                if self.bytes_per_second:
                    time.sleep(len(chunk) / self.bytes_per_second)
