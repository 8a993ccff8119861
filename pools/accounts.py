"""The passwd and group files of a container whose user has a name: the image's own, with lines for that user first.

The files are in the container's directory on this host, owned by root with mode 0444, and mounted read-only over the
image's. The image's files are read once, from a container that is never started. Images are untrusted: only regular
files of a moderate size are accepted, and their bytes are copied unchanged.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pools import host, mounts
from pools.errors import CannotMount, ContainerMissing, EngineFailure
from pools.nodes import here
from pools.runtime.base import ContainerPlan, ContainerRuntime, File, Image, Mount
from pools.spec import Owner, WorkloadSpec

PASSWD, GROUP = "/etc/passwd", "/etc/group"
SHELL = "/bin/sh"
MAX_BYTES = 1 << 20
MAX_KNOWN = 32
INSTEAD = "Leave user.name out, or use another image."
READER = "bh-accounts-"
"""The name prefix of containers that are only read from; the Docker socket proxy lets no others be read."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The content of an image's two files; empty if it has none."""

    passwd: bytes
    group: bytes


_known: dict[str, Accounts] = {}
"""Image id → its files; an image never changes."""


def write(home: Path, runtime: ContainerRuntime, image: Image, spec: WorkloadSpec, owner: Owner) -> None:
    """Create what ``binds`` mounts below ``home``, the container's directory on this host. Raises CannotMount."""
    if spec.user.name is None:
        return
    content = of_image(runtime, image)
    directory = _directory(home)
    directory.mkdir(mode=0o700, exist_ok=True)
    _put(directory / "passwd", passwd(content.passwd, spec, owner))
    _put(directory / "group", group(content.group, spec, owner))


def binds(home: Path, spec: WorkloadSpec) -> tuple[Mount, ...]:
    """Mounts in addition to the volumes."""
    if spec.user.name is None:
        return ()
    files = {PASSWD: "passwd", GROUP: "group"}
    return tuple(Mount(str(_directory(home) / name), path, read_only=True) for path, name in files.items())


def _directory(home: Path) -> Path:
    """No volume can have this name."""
    return home / ".accounts"


def _put(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o444)
        file.write(content)
    draft.rename(path)


def passwd(content: bytes, spec: WorkloadSpec, owner: Owner) -> bytes:
    """The image's passwd with its user's line first, which replaces another one of that name."""
    name, home = spec.user.name, spec.user.home
    return _with([f"{name}:x:{owner.uid}:{owner.gid}:{name}:{home}:{SHELL}"], content)


def group(content: bytes, spec: WorkloadSpec, owner: Owner) -> bytes:
    """The image's group with a line for each group of its user that has no name there."""
    named = {_field(line, 2) for line in content.splitlines()}
    names = {gid: f"gid-{gid}" for gid in spec.user.groups} | {owner.gid: spec.user.name}
    lines = [f"{'root' if gid == 0 else name}:x:{gid}:" for gid, name in names.items()]
    return _with([line for line in lines if _field(line.encode(), 2) not in named], content)


def _with(lines: list[str], content: bytes) -> bytes:
    """Lookups by name and by number use the first matching line, so ours come before those of the image."""
    ours = [line.encode() for line in lines]
    names = {_field(line, 0) for line in ours}
    retained = [line for line in content.split(b"\n") if line and _field(line, 0) not in names]
    return b"".join(line + b"\n" for line in [*ours, *retained])


def _field(line: bytes, number: int) -> bytes:
    fields = line.split(b":")
    return fields[number].strip() if number < len(fields) else b""


def of_image(runtime: ContainerRuntime, image: Image) -> Accounts:
    """The image's files. Raises CannotMount if nothing can be mounted over them."""
    if image.id not in _known:
        accounts = _read(runtime, image)
        while len(_known) >= MAX_KNOWN:
            _known.pop(next(iter(_known)), None)
        _known[image.id] = accounts
    return _known[image.id]


def _read(runtime: ContainerRuntime, image: Image) -> Accounts:
    name = f"{READER}{secrets.token_hex(8)}"
    runtime.create(_reader(name, image))
    try:
        return Accounts(*(_content(path, _look(runtime, name, path)) for path in (PASSWD, GROUP)))
    finally:
        runtime.remove(name)


def _reader(name: str, image: Image) -> ContainerPlan:
    """A container of the image that never runs; its VOLUMEs are neither created nor filled."""
    labels = {**host.labels(), **host.node_labels()}
    return ContainerPlan(
        name=name, image=image.id, command=("none",), environment={}, labels=labels, uid=65534, mounts=(),
        network="none", address=None, dns=(), ports=(), exposed=(), read_only_root=True, cpus=0.01, memory_mb=6,
        pids_limit=1, shm_mb=1, tmpfs=mounts.tmpfs(WorkloadSpec(image.id), Owner(0, 0), image),
        placeholder=str(here().volumes.placeholder_dir()), runtime=None, probe=None, stop_timeout_ms=0,
    )  # fmt: skip


def _look(runtime: ContainerRuntime, name: str, path: str) -> File | None:
    try:
        return runtime.file(name, path, MAX_BYTES)
    except ContainerMissing:
        raise
    except EngineFailure as error:
        raise CannotMount(f"The image's {path} cannot be read; it may be a link to itself. {INSTEAD}") from error


def _content(path: str, file: File | None) -> bytes:
    if file is None:
        return b""
    if file.kind != "file":
        raise CannotMount(
            f"The image's {path} is a {file.kind}, not a file, so user.name cannot be added to it. {INSTEAD}"
        )
    if file.content is None:
        raise CannotMount(
            f"The image's {path} has {file.size} bytes; with user.name it may have at most {MAX_BYTES}. {INSTEAD}"
        )
    return file.content
