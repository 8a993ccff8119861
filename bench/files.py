"""Files in a held container beside ``docker cp`` and beside ``dd`` through a pipe, in turn."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import figures
from bench.load import Connection, Tenants
from bench.pairs import alternating
from bench.server import Server

ROUNDS, LONG_COUNT = 2, 5
SMALL = {"1KB": 1_000, "1MB": 1_000_000}
LONG_BYTES = 100_000_000
BLOCK_BYTES = 256 << 10
PIPE_SHARE = 0.6


class Files:
    """The files of one tenant, and of its container by the engine."""

    def __init__(self, server: Server, tenant: str, container: str, directory: Path) -> None:
        self.connection, self.container, self.directory = (
            Connection(server.api.base, server.api.key), container, directory,
        )  # fmt: skip
        self.connection.http.blocksize = BLOCK_BYTES
        self.path = f"/api/v1/tenants/{tenant}/files?path="

    def up(self, name: str) -> None:
        with (self.directory / name).open("rb") as file:
            length = str(os.fstat(file.fileno()).st_size)
            self._ask("PUT", name, file, {"Content-Length": length, "Content-Type": "application/octet-stream"})

    def down(self, name: str) -> None:
        into = self.directory / f"{name}.down"
        size = self._ask("GET", name, None, {}, into)
        if size != (self.directory / name).stat().st_size:
            raise SystemExit(f"bench: {name}: {size} bytes came back")

    def up_by_engine(self, name: str) -> None:
        _run("docker", "cp", "-q", str(self.directory / name), f"{self.container}:/state/engine-{name}")

    def down_by_engine(self, name: str) -> None:
        _run("docker", "cp", "-q", f"{self.container}:/state/engine-{name}", str(self.directory / f"{name}.engine"))

    def _ask(self, method: str, name: str, body: Any, headers: dict[str, str], into: Path | None = None) -> int:
        answer = self.connection.send(method, self.path + name, body, {**self.connection.headers, **headers})
        if answer.status not in (200, 201):
            raise SystemExit(f"bench: {method} {name} answered {answer.status}: {answer.read(300)!r}")
        size = 0
        with into.open("wb") if into else open(os.devnull, "wb") as file:
            while piece := answer.read(BLOCK_BYTES):
                size += file.write(piece)
        return size


def measure(server: Server, *, quick: bool = False) -> dict[str, Any]:
    """Written and read back: 1 KB and 1 MB as one act; 100 MB up and down, by the API, the engine, and a pipe."""
    from pools import lifecycle, volumes

    tenants, rounds = Tenants(server, "files"), 1 if quick else ROUNDS
    tenants.size(1, 1)
    held = tenants.claim("files-tenant")
    state = volumes.volume_path(UUID(held["containerId"]), "state")
    with tempfile.TemporaryDirectory(prefix="bh-bench-files-") as scratch:
        directory = Path(scratch)
        files = Files(server, "files-tenant", lifecycle.runtime_name(held["containerId"]), directory)
        found = {name: _there_and_back(files, name, size, rounds) for name, size in SMALL.items()}
        found |= _long(files, state, rounds)
    tenants.release_all()
    tenants.end()
    return found


def _there_and_back(files: Files, name: str, size: int, rounds: int) -> dict[str, Any]:
    (files.directory / name).write_bytes(os.urandom(size))
    ours, bare = alternating(
        rounds,
        lambda: (files.up(name), files.down(name)),
        lambda: (files.up_by_engine(name), files.down_by_engine(name)),
    )
    return figures.beside(ours, bare)


def _long(files: Files, state: Path, rounds: int) -> dict[str, Any]:
    """The pipe ends in the same volume. Each run overwrites the file of the one before."""
    name = "100MB"
    source, stored, back = files.directory / name, state / f"pipe-{name}", files.directory / f"{name}.pipe"
    source.write_bytes(os.urandom(LONG_BYTES))
    ways: dict[str, tuple[Callable[[], object], ...]] = {
        "up100MB": (lambda: files.up(name), lambda: files.up_by_engine(name), lambda: _pipe(source, stored)),
        "down100MB": (lambda: files.down(name), lambda: files.down_by_engine(name), lambda: _pipe(stored, back)),
    }
    found = {}
    for way, acts in ways.items():
        ours, bare, pipe = alternating(rounds, *acts, count=LONG_COUNT)
        found[way] = {**figures.beside(ours, bare), "pipe": pipe, "ofPipe": round(pipe["p50Ms"] / ours["p50Ms"], 2)}
    return found


def _pipe(source: Path, target: Path) -> None:
    _run("sh", "-c", 'dd if="$0" bs=256K | dd of="$1" bs=256K', str(source), str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
