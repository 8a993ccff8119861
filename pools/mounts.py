"""Everything that is mounted in a container, in one table: by the engine, by us, and the workload's volumes.

No mount lies inside another. A volume inside a volume is part of neither's save, and a restore into the outer one would
take it away from the running container; what lies below or above something else is hidden by it, or hides it.
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
KERNELS, ENGINES = "what the kernel shows there", "a file of the engine's"
NAMES = "the file that has user.name, which is no directory"
TAKEN: dict[str, str] = {
    SCRATCH: "the scratch space of tmpfsMb",
    "/dev": f"{KERNELS} (/dev/shm too, whose size is resources.shmMb)",
    "/proc": KERNELS,
    "/sys": KERNELS,
    "/.dockerenv": ENGINES,
    "/etc/group": NAMES,
    "/etc/hostname": ENGINES,
    "/etc/hosts": ENGINES,
    "/etc/passwd": NAMES,
    "/etc/resolv.conf": ENGINES,
    "/sbin/docker-init": ENGINES,
}
"""What every container has mounted, whatever its workload says."""
MAX_PATH = 400
MAX_BARE = 50
IMAGE_VOLUME = "image_volume"
"""The code of what an image's VOLUME stands in the way of, or goes without."""


def is_normal(path: str) -> bool:
    """Whether the path is absolute, below ``/`` and written as the engine writes it: one way to say each place."""
    parsed = PurePosixPath(path)
    return (
        path.startswith("/")
        and not path.startswith("//")
        and str(parsed) == path != "/"
        and ".." not in parsed.parts
        and not has_control(path)
    )


def pointers(volumes: Iterable[Volume]) -> Iterator[tuple[str, Volume]]:
    """Each volume with where its path stands in the workload."""
    custom = 0
    for volume in volumes:
        if volume.name in STANDARD_VOLUMES:
            yield f"/volumes/{volume.name}/containerPath", volume
        else:
            yield f"/volumes/custom/{custom}/containerPath", volume
            custom += 1


@dataclass(frozen=True, slots=True)
class Placed:
    """Something that a workload mounts."""

    pointer: str
    words: str
    written: str
    is_memory: bool

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.written)


def _placed(volumes: Iterable[Volume], memory: Iterable[MemoryMount]) -> list[Placed]:
    return [
        *(Placed(pointer, f"volume {one.name}", one.container_path, False) for pointer, one in pointers(volumes)),
        *(Placed(f"/tmpfs/{at}/path", "tmpfs", one.path, True) for at, one in enumerate(memory)),  # noqa: S108
    ]


def problems(volumes: Sequence[Volume], memory: Sequence[MemoryMount] = ()) -> list[FieldError]:
    """Why these cannot be mounted together, each with the pointer of the one to move."""
    wrong: list[FieldError] = []
    placed = _placed(volumes, memory)
    for index, one in enumerate(placed):
        pointer, path = one.pointer, one.path
        if not is_normal(one.written):
            detail = f"{one.written} is not an absolute, normal path such as /state."
            wrong.append(FieldError(pointer, detail, "invalid"))
        for taken, whose in TAKEN.items():
            if one.is_memory and str(path) == SCRATCH == taken:
                continue  # it says how large the scratch space is, and whether programs may run there
            if path.is_relative_to(taken):
                wrong.append(FieldError(pointer, f"{taken} is taken by {whose}, which would cover it.", "covered"))
            elif PurePosixPath(taken).is_relative_to(path):
                wrong.append(FieldError(pointer, f"{taken} inside it is taken by {whose}.", "covered"))
        for other_index, other in enumerate(placed):
            if path == other.path and other_index < index:
                wrong.append(FieldError(pointer, f"The {other.words} is there already.", "duplicate"))
            elif path != other.path and path.is_relative_to(other.path):
                wrong.append(FieldError(pointer, _inside_words(one, other), "overlap"))
    return wrong


def _inside_words(inner: Placed, outer: Placed) -> str:
    where = f"{inner.path} lies inside the {outer.words} ({outer.path})."
    if inner.is_memory or outer.is_memory:
        return f"{where} Put them beside each other, for one hides part of the other."
    return (
        f"{where} Put volumes beside each other, for what lies inside another is not saved with it, and a restore would"
        " take it away."
    )


@dataclass(slots=True)
class Declared:
    """What an image's VOLUMEs come to beside what a workload mounts."""

    bare: list[str] = field(default_factory=list)
    """Where nothing is mounted: each gets a tmpfs of its own."""
    in_memory: set[str] = field(default_factory=set)
    """Where the workload has a tmpfs, or every container: the scratch space."""
    wrong: list[FieldError] = field(default_factory=list)
    """Why such an image cannot be run with these volumes."""


def declared(spec: WorkloadSpec, image_volumes: Iterable[str]) -> Declared:
    """Compare an image's VOLUMEs, as it writes them, with what a workload mounts."""
    found = Declared()
    mounted = {volume.path for volume in spec.volumes}
    memory = {SCRATCH, *(one.path for one in spec.tmpfs)}
    for written in sorted(set(image_volumes)):
        path = _engine_path(written)
        if path is None:
            detail = (
                f"The image declares VOLUME {written[:100]!r}, and nothing can be mounted there. Use another image."
            )
            found.wrong.append(FieldError("/image", detail, IMAGE_VOLUME))
        elif path in memory:
            found.in_memory.add(path)
        elif PurePosixPath(path) not in mounted and path not in found.bare:
            clashes = [error for placed in pointers(spec.volumes) if (error := _clash(path, *placed))]
            found.wrong += clashes
            found.bare += [] if clashes else [path]
    found.bare.sort()
    if len(found.bare) > MAX_BARE:
        detail = f"The image declares {len(found.bare)} VOLUMEs that no volume holds; {MAX_BARE} are the most."
        found.wrong.append(FieldError("/image", detail, IMAGE_VOLUME))
    return found


def _engine_path(written: str) -> str | None:
    """Where the engine mounts a VOLUME; None where it cannot, or where that would cover what is there anyway."""
    path = "/" + posixpath.normpath(written).lstrip("/")
    if not written.startswith("/") or len(path) > MAX_PATH or not is_normal(path):
        return None
    parsed = PurePosixPath(path)
    clashes = (
        parsed.is_relative_to(taken) or PurePosixPath(taken).is_relative_to(parsed)
        for taken in TAKEN
        if taken != SCRATCH
    )
    return None if any(clashes) else path


def _clash(path: str, pointer: str, volume: Volume) -> FieldError | None:
    where = PurePosixPath(path)
    if where.is_relative_to(volume.path):
        why = "inside this volume: it would lie over it, and what is written there would not be saved"
    elif volume.path.is_relative_to(where):
        why = "around this volume: what is written beside it would not be saved"
    else:
        return None
    return FieldError(pointer, f"The image declares VOLUME {path} {why}. Mount the volume at {path}.", IMAGE_VOLUME)


def warnings(bare: Iterable[str]) -> list[FieldError]:
    """What to know of each VOLUME of an image that no volume of the workload holds."""
    return [
        FieldError(
            "/image",
            f"The image declares VOLUME {path}, and no volume of the workload is mounted there. It is empty memory of"
            " tmpfsMb: the image's own files there are hidden, and what is written there is gone with the container."
            " Mount a volume there to keep it, or name the path in tmpfs if that is what you want.",
            IMAGE_VOLUME,
        )
        for path in bare
    ]


def too_large(spec: WorkloadSpec) -> Iterator[FieldError]:
    """Memory that is asked for and that the container's own limit does not have."""
    shm = spec.resources.shm_mb or 0
    total = shm + sum(one.size_mb for one in spec.tmpfs)
    if total > spec.resources.memory_mb:
        pointer = f"/tmpfs/{len(spec.tmpfs) - 1}/sizeMb" if spec.tmpfs else "/resources/shmMb"  # noqa: S108
        detail = (
            f"shmMb and tmpfs come to {total} MiB, and what is written there counts towards memoryMb"
            f" ({spec.resources.memory_mb}). Raise memoryMb, or ask for less."
        )
        yield FieldError(pointer, detail, "out_of_range")


def tmpfs(spec: WorkloadSpec, owner: Owner, image: Image) -> tuple[Tmpfs, ...]:
    """The memory that a container has mounted: its scratch space, what its workload asks for, and what its image
    declares and no volume holds."""
    found, size = declared(spec, image.volumes), spec.resources.tmpfs_mb
    own = {one.path: one for one in spec.tmpfs}
    scratch = own.pop(SCRATCH, MemoryMount(SCRATCH, size))

    def of(one: MemoryMount, mode: int, whose: Owner) -> Tmpfs:
        return Tmpfs(one.path, one.size_mb, mode, *whose, is_declared=one.path in found.in_memory, is_exec=one.exec)

    return (
        of(scratch, 0o1777, Owner(0, 0)),
        *(of(one, 0o700, owner) for one in own.values()),
        *(Tmpfs(path, size, 0o700, *owner, is_declared=True) for path in found.bare),
    )


def check(spec: WorkloadSpec, image: Image) -> None:
    """Raise CannotMount for a spec that was stored before all of this was checked, or for another image by its name."""
    if wrong := problems(spec.volumes, spec.tmpfs) + declared(spec, image.volumes).wrong:
        said = " ".join(dict.fromkeys(f"{one.pointer}: {one.detail}" for one in wrong))
        raise CannotMount(f"Save the workload with other paths: {said}")


def inside(spec: WorkloadSpec, container_path: str) -> Volume | None:
    """A volume that is mounted within a directory of another volume, or None."""
    path = PurePosixPath(container_path)
    found = spec.volume_of(container_path)
    own = found and found[0]
    return next((one for one in spec.volumes if one is not own and one.path.is_relative_to(path)), None)
