"""All mounts of a container in one table: by the engine, by Boilerhouse, and the workload's volumes.

No mount is inside another. A volume inside another would be in neither's save, and a restore to the outer one would
remove it from the running container; a mount over or under another hides it or is hidden.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from boilerhouse.core.errors import FieldError
from boilerhouse.core.text import has_control
from pools.errors import CannotMount
from pools.runtime.base import Image, Tmpfs
from pools.spec import STANDARD_VOLUMES, MemoryMount, Owner, Volume, WorkloadSpec

SCRATCH = "/tmp"  # noqa: S108
KERNELS, ENGINES = "the kernel's file systems", "a file of the engine"
NAMES = "the file that contains user.name, which is not a directory"
TAKEN: dict[str, str] = {
    SCRATCH: "the scratch space of tmpfsMb",
    "/dev": f"{KERNELS} (/dev/shm too, whose size is resources.shmMb)",
    "/proc": KERNELS,
    "/sys": KERNELS,
    "/.boilerhouse": "the guest agent",
    "/.dockerenv": ENGINES,
    "/etc/group": NAMES,
    "/etc/hostname": ENGINES,
    "/etc/hosts": ENGINES,
    "/etc/passwd": NAMES,
    "/etc/resolv.conf": ENGINES,
    "/sbin/docker-init": ENGINES,
}
"""Mounts of every container, whatever its workload is."""
MAX_PATH = 400
MAX_BARE = 50
IMAGE_VOLUME = "image_volume"
"""The code of problems and warnings about an image's VOLUME."""


def is_normal(path: str) -> bool:
    """Whether the path is absolute, below ``/`` and normalized, so that each place has one spelling."""
    parsed = PurePosixPath(path)
    return (
        path.startswith("/")
        and not path.startswith("//")
        and str(parsed) == path != "/"
        and ".." not in parsed.parts
        and not has_control(path)
    )


def pointers(volumes: Iterable[Volume]) -> Iterator[tuple[str, Volume]]:
    """Each volume with the pointer of its path in the workload."""
    custom = 0
    for volume in volumes:
        if volume.name in STANDARD_VOLUMES:
            yield f"/volumes/{volume.name}/containerPath", volume
        else:
            yield f"/volumes/custom/{custom}/containerPath", volume
            custom += 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A mount of a workload."""

    pointer: str
    words: str
    written: str
    is_memory: bool

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.written)


def _placed(volumes: Iterable[Volume], memory: Iterable[MemoryMount]) -> list[Placed]:
    return [
        *(Placed(pointer, f"volume {item.name}", item.container_path, False) for pointer, item in pointers(volumes)),
        *(Placed(f"/tmpfs/{at}/path", "tmpfs", item.path, True) for at, item in enumerate(memory)),  # noqa: S108
    ]


def problems(volumes: Sequence[Volume], memory: Sequence[MemoryMount] = ()) -> list[FieldError]:
    """Why these cannot be mounted together, each with the pointer of the one to move."""
    wrong: list[FieldError] = []
    placed = _placed(volumes, memory)
    for index, mount in enumerate(placed):
        pointer, path = mount.pointer, mount.path
        if not is_normal(mount.written):
            detail = f"{mount.written} is not an absolute, normalized path such as /state."
            wrong.append(FieldError(pointer, detail, "invalid"))
        for reserved, whose in TAKEN.items():
            if mount.is_memory and str(path) == SCRATCH == reserved:
                continue  # it sets the size of the scratch space, and whether programs may run there
            if path.is_relative_to(reserved):
                wrong.append(FieldError(pointer, f"{reserved} is used by {whose}, which would cover it.", "covered"))
            elif PurePosixPath(reserved).is_relative_to(path):
                wrong.append(FieldError(pointer, f"{reserved} inside it is used by {whose}.", "covered"))
        for other_index, other in enumerate(placed):
            if path == other.path and other_index < index:
                wrong.append(FieldError(pointer, f"The {other.words} is already mounted there.", "duplicate"))
            elif path != other.path and path.is_relative_to(other.path):
                wrong.append(FieldError(pointer, _inside_words(mount, other), "overlap"))
    return wrong


def _inside_words(inner: Placed, outer: Placed) -> str:
    where = f"{inner.path} is inside the {outer.words} ({outer.path})."
    if inner.is_memory or outer.is_memory:
        return f"{where} Put them beside each other, because one hides part of the other."
    return (
        f"{where} Put volumes beside each other: a volume inside another is not saved with it, and a restore"
        " would remove it."
    )


@dataclass(slots=True)
class Declared:
    """An image's VOLUMEs, compared with the workload's mounts."""

    bare: list[str] = field(default_factory=list)
    """VOLUMEs without a mount: each gets its own tmpfs."""
    in_memory: set[str] = field(default_factory=set)
    """VOLUMEs on a tmpfs of the workload or on the scratch space."""
    wrong: list[FieldError] = field(default_factory=list)
    """Why the image cannot run with these volumes."""


def declared(spec: WorkloadSpec, image_volumes: Iterable[str]) -> Declared:
    """Compare an image's VOLUMEs, as spelled in the image, with the workload's mounts."""
    result = Declared()
    mounted = {volume.path for volume in spec.volumes}
    memory = {SCRATCH, *(memory_mount.path for memory_mount in spec.tmpfs)}
    for written in sorted(set(image_volumes)):
        path = _engine_path(written)
        if path is None:
            detail = f"The image declares VOLUME {written[:100]!r}, where nothing can be mounted. Use another image."
            result.wrong.append(FieldError("/image", detail, IMAGE_VOLUME))
        elif path in memory:
            result.in_memory.add(path)
        elif PurePosixPath(path) not in mounted and path not in result.bare:
            clashes = [error for placed in pointers(spec.volumes) if (error := _clash(path, *placed))]
            result.wrong += clashes
            result.bare += [] if clashes else [path]
    result.bare.sort()
    if len(result.bare) > MAX_BARE:
        detail = (
            f"The image declares {len(result.bare)} VOLUMEs without a volume of the workload; the limit is {MAX_BARE}."
        )
        result.wrong.append(FieldError("/image", detail, IMAGE_VOLUME))
    return result


def _engine_path(written: str) -> str | None:
    """The path at which the engine mounts a VOLUME; None if it cannot, or if that would cover a standard mount."""
    path = "/" + posixpath.normpath(written).lstrip("/")
    if not written.startswith("/") or len(path) > MAX_PATH or not is_normal(path):
        return None
    parsed = PurePosixPath(path)
    clashes = (
        parsed.is_relative_to(reserved) or PurePosixPath(reserved).is_relative_to(parsed)
        for reserved in TAKEN
        if reserved != SCRATCH
    )
    return None if any(clashes) else path


def _clash(path: str, pointer: str, volume: Volume) -> FieldError | None:
    where = PurePosixPath(path)
    if where.is_relative_to(volume.path):
        why = "inside this volume, which it would cover: data written there would not be saved"
    elif volume.path.is_relative_to(where):
        why = "around this volume: data written beside the volume would not be saved"
    else:
        return None
    return FieldError(pointer, f"The image declares VOLUME {path} {why}. Mount the volume at {path}.", IMAGE_VOLUME)


def warnings(bare: Iterable[str]) -> list[FieldError]:
    """A warning for each VOLUME of an image without a volume of the workload."""
    return [
        FieldError(
            "/image",
            f"The image declares VOLUME {path}, but the workload mounts no volume there. The path is an empty RAM"
            " directory of tmpfsMb: it hides the image's own files, and its content is lost with the container."
            " Mount a volume there to keep it, or list the path in tmpfs if this is what you want.",
            IMAGE_VOLUME,
        )
        for path in bare
    ]


def too_large(spec: WorkloadSpec) -> Iterator[FieldError]:
    """Requested memory mounts that exceed the container's memory limit."""
    shm = spec.resources.shm_mb or 0
    total = shm + sum(memory_mount.size_mb for memory_mount in spec.tmpfs)
    if total > spec.resources.memory_mb:
        pointer = f"/tmpfs/{len(spec.tmpfs) - 1}/sizeMb" if spec.tmpfs else "/resources/shmMb"  # noqa: S108
        detail = (
            f"shmMb and tmpfs add up to {total} MiB, and data in them counts towards memoryMb"
            f" ({spec.resources.memory_mb}). Raise memoryMb, or reduce them."
        )
        yield FieldError(pointer, detail, "out_of_range")


def tmpfs(spec: WorkloadSpec, owner: Owner, image: Image) -> tuple[Tmpfs, ...]:
    """The memory mounts of a container: its scratch space, those of its workload, and those for VOLUMEs without a
    volume."""
    declaration, size = declared(spec, image.volumes), spec.resources.tmpfs_mb
    own = {memory_mount.path: memory_mount for memory_mount in spec.tmpfs}
    scratch = own.pop(SCRATCH, MemoryMount(SCRATCH, size))

    def of(memory_mount: MemoryMount, mode: int, whose: Owner) -> Tmpfs:
        return Tmpfs(
            memory_mount.path,
            memory_mount.size_mb,
            mode,
            *whose,
            is_declared=memory_mount.path in declaration.in_memory,
            is_exec=memory_mount.exec,
        )

    return (
        of(scratch, 0o1777, Owner(0, 0)),
        *(of(memory_mount, 0o700, owner) for memory_mount in own.values()),
        *(Tmpfs(path, size, 0o700, *owner, is_declared=True) for path in declaration.bare),
    )


def check(spec: WorkloadSpec, image: Image) -> None:
    """Raise CannotMount for a spec that was stored before these checks existed, or for a changed image."""
    if wrong := problems(spec.volumes, spec.tmpfs) + declared(spec, image.volumes).wrong:
        message = " ".join(dict.fromkeys(f"{problem.pointer}: {problem.detail}" for problem in wrong))
        raise CannotMount(f"Save the workload with other paths: {message}")


def inside(spec: WorkloadSpec, container_path: str) -> Volume | None:
    """A volume that is mounted inside a directory of another volume, or None."""
    path = PurePosixPath(container_path)
    own_volume = spec.volume_of(container_path)
    own = own_volume and own_volume[0]
    return next((volume for volume in spec.volumes if volume is not own and volume.path.is_relative_to(path)), None)
