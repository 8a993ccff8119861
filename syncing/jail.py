"""The sandbox that rclone runs in; the only module that builds it.

It contains the volume, rclone, setpriv with its libraries, certificates, the required host names, and nothing else.
rclone runs as the container's user; links created by a tenant resolve inside. A restore has no capability. A save sees
the volume read-only and has one: to read files that their owner made unreadable, so that no mode on the disk has to
change.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pools.spec import Owner
from syncing.rclone_binary import rclone_path
from syncing.sinks import network_settings

VOLUME = "/vol"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Where rclone looks for certificates first."""
_DAC_READ_SEARCH = 2
_RESOLVER = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")


@dataclass(frozen=True, slots=True)
class Jail:
    """What one run may see: ``directory`` as ``/vol``, owned by ``owner``, and the binds of its sink."""

    directory: Path
    owner: Owner
    writable: bool
    """Whether the volume is writable: a restore writes it, a save reads it."""
    binds: tuple[tuple[Path, str], ...] = ()
    """Directories of a sink on this host: (on the host, inside)."""
    opens: Callable[[], int] | None = None
    """Opens the directory that ``show`` mounts over ``directory``, because a path may be replaced."""

    def wrap(self, arguments: list[str], refused: int, hosts: int | None = None) -> list[str]:
        """The command that runs ``rclone <arguments>`` inside; it inherits the descriptor of ``syscalls.refused``.

        With ``hosts``, a descriptor of a hosts file, only its names can be resolved; otherwise the resolver is used.
        """
        bwrap, setpriv = _programs()
        uid, gid = map(str, self.owner)
        rights = "-all" if self.writable else "-all,+dac_read_search"
        return [
            bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
            *(word for bind in self._binds(setpriv, hosts) for word in bind),
            "--tmpfs", "/tmp",  # noqa: S108
            "--chdir", "/", "--seccomp", str(refused),
            "/bin/setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs",
            f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}",
            "/bin/rclone", *arguments,
        ]  # fmt: skip

    def show(self) -> None:
        """Mount what ``opens`` opens over ``directory``, only for this thread and its children.

        The thread sees the node's other mounts as they are now. Raises OSError, and what ``opens`` raises.
        """
        if self.opens is None:
            return
        _call("unshare", _NEW_MOUNTS)
        _call("mount", None, b"/", None, _RECURSIVELY | _PRIVATE, None)
        handle = self.opens()  # open it here, because a descriptor from another mount namespace cannot be mounted
        try:
            _call("mount", f"/proc/self/fd/{handle}".encode(), os.fsencode(self.directory), None, _BIND, None)
        finally:
            os.close(handle)

    def _binds(self, setpriv: str, hosts: int | None) -> Iterator[tuple[str, ...]]:
        """All binds, below directories that rclone's user may traverse.

        bwrap itself creates missing parent directories of a bind for root only.
        """
        volume, sink = ("--bind", "--ro-bind") if self.writable else ("--ro-bind", "--bind")
        binds = [
            *(("--ro-bind", source, inside) for source, inside in _libraries(setpriv)),
            ("--ro-bind", setpriv, "/bin/setpriv"),
            ("--ro-bind", rclone_path(), "/bin/rclone"),
            ("--ro-bind", network_settings.ca_bundle(), CERTIFICATES),
            *(("--ro-bind-try", path, path) for path in (_RESOLVER if hosts is None else ())),
            (volume, str(self.directory), VOLUME),
            *((sink, str(path), inside) for path, inside in self.binds),
        ]
        above = {parent: None for _, _, inside in binds for parent in reversed(PurePosixPath(inside).parents)}
        for parent in above:
            if parent != PurePosixPath("/"):
                yield "--perms", "0755", "--dir", str(parent)
        yield from binds
        if hosts is not None:
            yield "--perms", "0444", "--ro-bind-data", str(hosts), "/etc/hosts"


_NEW_MOUNTS, _BIND, _RECURSIVELY, _PRIVATE = 0x20000, 1 << 12, 1 << 14, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def can_read_all() -> bool:
    """Whether this process has the capability that it gives to rclone for a save."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> _DAC_READ_SEARCH & 1)


@cache
def _programs() -> tuple[str, str]:
    return shutil.which("bwrap") or "/usr/bin/bwrap", shutil.which("setpriv") or "/usr/bin/setpriv"


@cache
def _libraries(program: str) -> tuple[tuple[str, str], ...]:
    """The shared libraries of ``program``: (on the host, inside)."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=10, check=True).stdout
    return tuple((str(Path(library).resolve()), library) for library in re.findall(r"(/\S+)", listed))
