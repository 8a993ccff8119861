"""Everything that is mounted in a container, in one table: by the engine, by us, and the workload's volumes.

No mount lies inside another. A volume inside a volume is part of neither's save, and a restore into the outer one would
take it away from the running container; what lies below or above something else is hidden by it, or hides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from boilerhouse.core.errors import FieldError
from pools.errors import CannotMount
from pools.spec import STANDARD_VOLUMES, Volume, WorkloadSpec

SCRATCH = "/tmp"  # noqa: S108
KERNELS, ENGINES = "what the kernel shows there", "a file of the engine's"
TAKEN: dict[str, str] = {
    SCRATCH: "the scratch space of tmpfsMb",
    "/dev": f"{KERNELS} (/dev/shm too)",
    "/proc": KERNELS,
    "/sys": KERNELS,
    "/.dockerenv": ENGINES,
    "/etc/hostname": ENGINES,
    "/etc/hosts": ENGINES,
    "/etc/resolv.conf": ENGINES,
    "/sbin/docker-init": ENGINES,
}
"""What every container has mounted, whatever its workload says."""
MAX_PATH = 400


def has_control(text: str) -> bool:
    """Whether a control character is in the text: a newline, an escape, a NUL …"""
    return any(ord(one) < 32 or 127 <= ord(one) < 160 for one in text)


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


def problems(volumes: Sequence[Volume]) -> list[FieldError]:
    """Why these volumes cannot be mounted together, each with the pointer of the one to move."""
    wrong: list[FieldError] = []
    placed = list(pointers(volumes))
    for index, (pointer, volume) in enumerate(placed):
        path = volume.path
        if not is_normal(volume.container_path):
            detail = f"{volume.container_path} is not an absolute, normal path such as /state."
            wrong.append(FieldError(pointer, detail, "invalid"))
        for taken, whose in TAKEN.items():
            if path.is_relative_to(taken):
                wrong.append(FieldError(pointer, f"{taken} is taken by {whose}, which would cover it.", "covered"))
            elif PurePosixPath(taken).is_relative_to(path):
                wrong.append(FieldError(pointer, f"{taken} inside it is taken by {whose}.", "covered"))
        for other_index, (_, other) in enumerate(placed):
            if path == other.path and other_index < index:
                wrong.append(FieldError(pointer, f"The volume {other.name} is there already.", "duplicate"))
            elif path != other.path and path.is_relative_to(other.path):
                detail = (
                    f"{path} lies inside the volume {other.name} ({other.path}). Put volumes beside each other, for"
                    " what lies inside another is not saved with it, and a restore would take it away."
                )
                wrong.append(FieldError(pointer, detail, "overlap"))
    return wrong


def check(spec: WorkloadSpec) -> None:
    """Raise CannotMount for a spec that was stored before all of this was checked."""
    if wrong := problems(spec.volumes):
        said = " ".join(dict.fromkeys(f"{one.pointer}: {one.detail}" for one in wrong))
        raise CannotMount(f"Its volumes cannot be mounted as they stand. {said} Save the workload with other paths.")


def inside(spec: WorkloadSpec, container_path: str) -> Volume | None:
    """A volume that is mounted within a directory of another volume, or None."""
    path = PurePosixPath(container_path)
    found = spec.volume_of(container_path)
    own = found and found[0]
    return next((one for one in spec.volumes if one is not own and one.path.is_relative_to(path)), None)
